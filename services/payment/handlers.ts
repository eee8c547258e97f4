import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy, type HandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { type Cause, causeOf, eventCausedBy } from "../../relay/outbox/append.ts";
import type { Statement } from "../kit/statements.ts";
import { decide, evolve, nextCall, noPayment, type PaymentFact, type PaymentMessage, toEvent } from "./domain.ts";
import { claim, insertPayments, lockPayments, type Payment, updatePayments } from "./repository.ts";

/** The event types that payment reacts to. */
export const handledTypes = eventTypesHandledBy("payment");

/** What the handler needs of the worker. */
export interface CallStarter {
  /** How many calls could be started now. */
  freeSlots(): number;
  /** Makes the calls of payments that the caller has claimed. */
  start(claimed: readonly Payment[]): void;
  /** Makes the worker look for due calls at once. */
  wake(): void;
}

/**
 * Handles a batch of events: locks all payments concerned in one read, decides event by event in memory, and writes each
 * changed payment once. The same commit claims as many of the new gateway calls as the worker has free slots, so that the
 * worker need not look for them. The other calls are due at once, for any instance.
 */
export function paymentHandler(deps: {
  readonly newId: () => string;
  readonly worker: CallStarter;
}): BatchHandler<HandledBy<"payment">> {
  const { newId, worker } = deps;
  return async (transaction, events) => {
    const orderIds = [...new Set(events.map(({ message }) => message.orderId))];
    const { payments: before, unreadable, now } = await lockPayments(transaction, orderIds);
    // Its events wait, parked, for a version that can read the row.
    for (const error of unreadable.values()) throw error;
    const after = new Map(before);
    const publish: NewEvent[] = [];
    const ignored: string[] = [];
    for (const { envelope, message } of events) {
      const { orderId } = message;
      const payment = after.get(orderId) ?? { state: noPayment(orderId), pending: undefined };
      const cause = causeOf(envelope);
      const { changed, facts } = applyMessage(payment, message, cause, now);
      if (facts.length === 0) {
        ignored.push(envelope.id);
        continue;
      }
      after.set(orderId, changed);
      publish.push(...eventsOf(orderId, facts, cause, newId));
    }
    const due = [...after.values()].filter(({ pending }) => pending?.attempts === 0);
    const claimed = due.slice(0, worker.freeSlots()).map((payment) => claim(payment, now));
    for (const payment of claimed) after.set(payment.state.orderId, payment);
    return {
      writes: writesOf(before, after),
      publish,
      ignored,
      onCommitted() {
        worker.start(claimed);
        if (claimed.length < due.length) worker.wake();
      },
    };
  };
}

/** The payment after a message. If it now waits for a new gateway call, that call is due at once and answers `cause`. */
export function applyMessage(
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

/** The events that publish the facts, in answer to `cause`. */
export function eventsOf(
  orderId: string,
  facts: readonly PaymentFact[],
  cause: Cause,
  newId: () => string,
): readonly NewEvent[] {
  return facts.flatMap((fact) => {
    const event = toEvent(orderId, fact);
    return event === undefined ? [] : [eventCausedBy(cause, orderId, event, newId)];
  });
}

/** Statements that write the payments that differ: one for the new rows, one for the changed rows. */
export function writesOf(
  before: ReadonlyMap<string, Payment>,
  after: ReadonlyMap<string, Payment>,
): readonly Statement[] {
  const changed = [...after].filter(([orderId, payment]) => before.get(orderId) !== payment);
  const added = changed.flatMap(([orderId, payment]) => (before.has(orderId) ? [] : [payment]));
  const updated = changed.flatMap(([orderId, payment]) => (before.has(orderId) ? [payment] : []));
  return [...insertPayments(added), ...updatePayments(updated)];
}
