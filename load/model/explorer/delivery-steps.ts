/**
 * The steps of the relay, the consumers, the clients and the deadlines.
 *
 * The events of one order are one log on the topic, and every service reads it in order. What can happen next depends
 * only on the events that a service has not read yet, so the state keeps these for each service, without the events
 * that the service does not handle.
 *
 * At-least-once delivery means that a service may receive an event again, at any time after it has handled it: the relay
 * sends twice, a process crashes between commit and offset, a partition moves. If inboxes are kept, they recognise the
 * event and the state stays the same, so these steps are left out. If inboxes are emptied, nothing is remembered: any
 * handled event can be handled again at any time, in any order, any number of times. That is more than reading the topic
 * again could do. A crash before the commit changes nothing, so it needs no step either.
 */
import { eventTypesHandledBy } from "../../../proto/event-table.ts";
import type { OrderCommand } from "../../../services/order/domain.ts";
import { byService, serviceNames } from "../../../services/stack/services.ts";
import { shortName } from "../world/event-summary.ts";
import type { Candidate, Situation } from "./candidate.ts";
import { added, type SagaState, type Values } from "./saga-state.ts";
import { type Transactions, withService } from "./transactions.ts";

const handledBy = byService(eventTypesHandledBy);

/** Steps of the relay and of the services' consumers. */
export function* deliverySteps(
  situation: Situation,
  inboxes: "kept" | "emptied",
  { messages }: Values,
  transactions: Transactions,
): Iterable<Candidate> {
  const { state, stock } = situation;
  for (const service of serviceNames) {
    const { outbox, unread, handled } = state.services[service];
    const [sent] = outbox;
    if (sent !== undefined) {
      const event = messages.valueOf(sent);
      yield {
        label: `the relay sends ${service}'s ${shortName(event)}`,
        isProgress: true,
        take: () => {
          const sender = withService(state, service, { outbox: outbox.slice(1) });
          return { state: onTopic(sender, sent, event.$typeName), stock };
        },
      };
    }
    const [next] = unread;
    if (next !== undefined) {
      yield {
        label: `${service} handles ${shortName(messages.valueOf(next))}`,
        isProgress: true,
        take: () => {
          const read = {
            unread: unread.slice(1),
            handled: inboxes === "kept" ? handled : added(handled, next),
          };
          return transactions.handle(service, { state: withService(state, service, read), stock }, next);
        },
      };
    }
    for (const again of handled) {
      yield {
        label: `${service} handles ${shortName(messages.valueOf(again))} again`,
        isProgress: false,
        take: () => transactions.handle(service, situation, again),
      };
    }
  }
}

/** Steps that come from outside the saga: the client cancels the order, or its deadline passes. */
export function* commandSteps(
  situation: Situation,
  commands: readonly OrderCommand["$typeName"][],
  { messages }: Values,
  transactions: Transactions,
): Iterable<Candidate> {
  for (const $typeName of commands) {
    yield {
      label: $typeName === "CancelOrder" ? "the client cancels" : "the deadline passes",
      isProgress: false,
      take: () => transactions.handle("order", situation, messages.idOf({ $typeName })),
    };
  }
}

/** The state once the event is on the topic: unread by every service that handles its type. */
function onTopic(state: SagaState, event: number, type: string): SagaState {
  const services = byService((service) => {
    const before = state.services[service];
    return handledBy[service].has(type) ? { ...before, unread: [...before.unread, event] } : before;
  });
  return { ...state, services };
}
