import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy, type HandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/consumer.ts";
import { answerTo, type Cause, causeOf } from "../../relay/outbox.ts";
import type { Transaction } from "../kit/database.ts";
import { decide, evolve, nextCall, noPayment, type PaymentFact, type PaymentMessage, toEvent } from "./domain.ts";
import { insertPayments, lockPayments, type Payment, updatePayments } from "./repository.ts";

/** The event types that payment reacts to. */
export const handledTypes = eventTypesHandledBy("payment");

/** Whether handling the event may have left a gateway call to be made: the worker is woken for it. */
export function mayNeedCall(message: HandledBy<"payment">): boolean {
  return message.$typeName !== "shop.order.v1.OrderPlaced";
}

/** Handles a batch of events: every payment concerned is locked once, decided event by event, written once. */
export function paymentHandler(deps: { readonly newId: () => string }): BatchHandler<HandledBy<"payment">> {
  return async (transaction, events, now) => {
    const before = await lockPayments(transaction, [...new Set(events.map(({ message }) => message.orderId))]);
    const after = new Map(before);
    const publish: NewEvent[] = [];
    const ignored: string[] = [];
    for (const { envelope, message } of events) {
      const { orderId } = message;
      const payment = after.get(orderId) ?? { state: noPayment(orderId), pending: undefined };
      const cause = causeOf(envelope);
      const { changed, facts } = apply(payment, message, cause, now);
      if (facts.length === 0) {
        ignored.push(envelope.id);
        continue;
      }
      after.set(orderId, changed);
      publish.push(...eventsOf(orderId, facts, cause, deps.newId));
    }
    await savePayments(transaction, before, after);
    return { publish, ignored };
  };
}

/** The payment after a message. A call that it waits for from now on is due at once, and answers `cause`. */
export function apply(
  payment: Payment,
  message: PaymentMessage,
  cause: Cause,
  now: Date,
): { readonly changed: Payment; readonly facts: readonly PaymentFact[] } {
  const facts = decide(payment.state, message);
  const state = facts.reduce(evolve, payment.state);
  const call = nextCall(state);
  if (call === undefined) return { changed: { state, pending: undefined }, facts };
  const isSameCall = call.idempotencyKey === nextCall(payment.state)?.idempotencyKey;
  return { changed: { state, pending: isSameCall ? payment.pending : { cause, attempts: 0, dueAt: now } }, facts };
}

/** The events that tell of the facts, in answer to `cause`. */
export function eventsOf(
  orderId: string,
  facts: readonly PaymentFact[],
  cause: Cause,
  newId: () => string,
): readonly NewEvent[] {
  return facts.flatMap((fact) => {
    const event = toEvent(orderId, fact);
    return event === undefined ? [] : [answerTo(cause, orderId, event, newId)];
  });
}

/** Writes what differs: new rows in one statement, changed rows in another. */
export async function savePayments(
  transaction: Transaction,
  before: ReadonlyMap<string, Payment>,
  after: ReadonlyMap<string, Payment>,
): Promise<void> {
  const changed = [...after].filter(([orderId, payment]) => before.get(orderId) !== payment);
  await insertPayments(
    transaction,
    changed.flatMap(([orderId, payment]) => (before.has(orderId) ? [] : [payment])),
  );
  await updatePayments(
    transaction,
    changed.flatMap(([orderId, payment]) => (before.has(orderId) ? [payment] : [])),
  );
}
