import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy, type HandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { answerTo, type Cause, causeOf } from "../../relay/outbox/append.ts";
import type { Statement } from "../kit/statements.ts";
import { decide, evolve, nextCall, noPayment, type PaymentFact, type PaymentMessage, toEvent } from "./domain.ts";
import { claim, insertPayments, lockPayments, type Payment, updatePayments } from "./repository.ts";

/** The event types that payment reacts to. */
export const handledTypes = eventTypesHandledBy("payment");

/** What makes the calls that payments wait for: the worker. */
export interface GatewayCalls {
  /** How many calls could be started at once. */
  free(): number;
  /** Makes the calls of payments that are claimed for it. */
  start(claimed: readonly Payment[]): void;
  /** Something is due: look at once. */
  wake(): void;
}

/**
 * Handles a batch of events: every payment concerned is locked once, decided event by event, written once. As many calls
 * as can be started at once are claimed by the commit that asks for them; others are due for whoever looks first.
 */
export function paymentHandler(deps: {
  readonly newId: () => string;
  readonly calls: GatewayCalls;
}): BatchHandler<HandledBy<"payment">> {
  const { newId, calls } = deps;
  return async (transaction, events) => {
    const orderIds = [...new Set(events.map(({ message }) => message.orderId))];
    const { payments: before, now } = await lockPayments(transaction, orderIds);
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
      publish.push(...eventsOf(orderId, facts, cause, newId));
    }
    const due = [...after.values()].filter(({ pending }) => pending?.attempts === 0);
    const claimed = due.slice(0, calls.free()).map((payment) => claim(payment, now));
    for (const payment of claimed) after.set(payment.state.orderId, payment);
    return {
      writes: writesOf(before, after),
      publish,
      ignored,
      committed() {
        calls.start(claimed);
        if (claimed.length < due.length) calls.wake();
      },
    };
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
export function writesOf(
  before: ReadonlyMap<string, Payment>,
  after: ReadonlyMap<string, Payment>,
): readonly Statement[] {
  const changed = [...after].filter(([orderId, payment]) => before.get(orderId) !== payment);
  const [old, fresh] = [
    changed.filter(([orderId]) => before.has(orderId)),
    changed.filter(([orderId]) => !before.has(orderId)),
  ];
  return [...insertPayments(fresh.map(([, payment]) => payment)), ...updatePayments(old.map(([, payment]) => payment))];
}
