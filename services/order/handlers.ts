import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy, type HandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { causeOf, eventCausedBy } from "../../relay/outbox/append.ts";
import { decide, evolve, toEvent } from "./domain.ts";
import type { CommittedFact, SagaMetrics } from "./metrics.ts";
import { lockOrders, updateOrders } from "./repository.ts";

/** The event types that Order reacts to. */
export const handledTypes = eventTypesHandledBy("order");

/**
 * Handles a batch of events: locks all orders concerned in one read, decides event by event in memory, and writes each
 * changed order once.
 */
export function orderHandler(deps: {
  readonly newId: () => string;
  readonly sagaMetrics: Pick<SagaMetrics, "recordFacts">;
}): BatchHandler<HandledBy<"order">> {
  return async (transaction, events) => {
    const before = await lockOrders(transaction, [...new Set(events.map(({ message }) => message.orderId))]);
    const after = new Map(before);
    const committedFacts: CommittedFact[] = [];
    const publish: NewEvent[] = [];
    const ignored: string[] = [];
    for (const { envelope, message } of events) {
      const { orderId } = message;
      const order = after.get(orderId);
      if (order === undefined) {
        // For example, another environment left its events on the topic.
        ignored.push(envelope.id);
        continue;
      }
      const facts = decide(order.state, message);
      if (facts.length === 0) {
        ignored.push(envelope.id);
        continue;
      }
      const { ageSeconds } = order;
      after.set(orderId, { state: facts.reduce(evolve, order.state), ageSeconds });
      for (const fact of facts) {
        committedFacts.push({ fact, ageSeconds });
        const event = toEvent(orderId, fact);
        if (event !== undefined) publish.push(eventCausedBy(causeOf(envelope), orderId, event, deps.newId));
      }
    }
    const writes = updateOrders(
      [...before].flatMap(([orderId, order]) => {
        // An order that no event changed is still the same object.
        const changed = after.get(orderId);
        return changed === undefined || changed === order ? [] : [{ before: order.state, after: changed.state }];
      }),
    );
    return { writes, publish, ignored, onCommitted: () => deps.sagaMetrics.recordFacts(committedFacts) };
  };
}
