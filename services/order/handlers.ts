import { eventTypesHandledBy, type HandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/consumer.ts";
import { answerTo, causeOf } from "../../relay/outbox.ts";
import { decide, evolve, type OrderState, toEvent } from "./domain.ts";
import { lockOrders, updateOrders } from "./repository.ts";

/** The event types that Order reacts to. */
export const handledTypes = eventTypesHandledBy("order");

/** Handles a batch of events: every order concerned is locked once, decided event by event, written once. */
export function orderHandler(deps: { readonly newId: () => string }): BatchHandler<HandledBy<"order">> {
  return async (transaction, events) => {
    const before = await lockOrders(transaction, [...new Set(events.map(({ message }) => message.orderId))]);
    const after = new Map<string, OrderState>(before);
    const publish = [];
    const ignored = [];
    for (const { envelope, message } of events) {
      const { orderId } = message;
      const state = after.get(orderId);
      // An order that nobody placed here: the topic may be shared with another environment's leftovers.
      const facts = state === undefined ? [] : decide(state, message);
      if (state === undefined || facts.length === 0) {
        ignored.push(envelope.id);
        continue;
      }
      after.set(orderId, facts.reduce(evolve, state));
      for (const fact of facts) {
        const answer = toEvent(orderId, fact);
        if (answer !== undefined) publish.push(answerTo(causeOf(envelope), orderId, answer, deps.newId));
      }
    }
    const writes = updateOrders(
      [...before.values()].flatMap((state) => {
        const changed = after.get(state.orderId);
        return changed === undefined || changed === state ? [] : [{ before: state, after: changed }];
      }),
    );
    return { writes, publish, ignored };
  };
}
