import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy, type HandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { causeOf, eventCausedBy } from "../../relay/outbox/append.ts";
import { decide, evolve, toEvent } from "./domain.ts";
import type { OrderStep, SagaMetrics } from "./metrics.ts";
import { lockOrders, updateOrders } from "./repository.ts";

/** The event types that Order reacts to. */
export const handledTypes = eventTypesHandledBy("order");

/**
 * Handles a batch of events: locks all orders concerned in one read, decides event by event in memory, and writes each
 * changed order once.
 */
export function orderHandler(deps: {
  readonly newId: () => string;
  readonly sagas: Pick<SagaMetrics, "stepped">;
}): BatchHandler<HandledBy<"order">> {
  return async (transaction, events) => {
    const before = await lockOrders(transaction, [...new Set(events.map(({ message }) => message.orderId))]);
    const after = new Map(before);
    const steps: OrderStep[] = [];
    const publish: NewEvent[] = [];
    const ignored: string[] = [];
    for (const { envelope, message } of events) {
      const { orderId } = message;
      const order = after.get(orderId);
      // The order may be unknown here, for example if another environment left its events on the topic.
      const facts = order === undefined ? [] : decide(order.state, message);
      if (order === undefined || facts.length === 0) {
        ignored.push(envelope.id);
        continue;
      }
      const { ageSeconds } = order;
      after.set(orderId, { state: facts.reduce(evolve, order.state), ageSeconds });
      for (const fact of facts) {
        steps.push({ fact, ageSeconds });
        const answer = toEvent(orderId, fact);
        if (answer !== undefined) publish.push(eventCausedBy(causeOf(envelope), orderId, answer, deps.newId));
      }
    }
    const writes = updateOrders(
      [...before].flatMap(([orderId, order]) => {
        const changed = after.get(orderId);
        return changed === undefined || changed === order ? [] : [{ before: order.state, after: changed.state }];
      }),
    );
    return { writes, publish, ignored, onCommitted: () => deps.sagas.stepped(steps) };
  };
}
