/**
 * The promises of the system, as the auditor checks them. Each has a file here that begins with its number. I8, "a
 * watcher sees growing versions that end in the final state", leaves no rows: services/stack/saga.e2e.test.ts checks it.
 */
import type { OrderBooks } from "../books.ts";
import { checkOrderExists } from "./i1-orders-exist.ts";
import { checkAuthorisations } from "./i3-authorisations.ts";
import { checkProgress } from "./i4-progress.ts";
import { checkFinalState } from "./i5-final-state.ts";
import { checkTopicOrder } from "./i6-topic-order.ts";
import { checkEffectOnce } from "./i7-effect-once.ts";
import { checkPublished } from "./i9-published-agrees.ts";
import { type AuditContext, type Finding, OrderCheck } from "./order-check.ts";
import { whyOrderWaits } from "./waiting-for-operator.ts";

/** What each promise says, and what it is checked on. */
export const promises = {
  I1: { title: "an acknowledged order exists; one request of one owner creates one order", unit: "orders" },
  I2: { title: "per SKU: initial = available + held + sold; held and sold agree with the orders", unit: "SKUs" },
  I3: {
    title: "at the gateway: at most one live authorisation, for the order's total; none for a failed order",
    unit: "authorisations",
  },
  I4: { title: "every order becomes final, and every event is handled, in time", unit: "orders" },
  I5: {
    title: "one final event; COMPLETED means sold and authorised, FAILED means released and voided",
    unit: "final orders",
  },
  I6: { title: "on the topic, the events of an order and publisher are in order, without a gap", unit: "records" },
  I7: { title: "an event takes effect once, however often it is delivered", unit: "inbox rows" },
  I9: { title: "what a service published agrees with its rows", unit: "outbox rows" },
} as const;

export type PromiseId = keyof typeof promises;
export const promiseIds = Object.keys(promises) as readonly PromiseId[];

export interface Verdict {
  readonly findings: readonly Finding[];
  /** Why the order waits for an operator; undefined if it does not. */
  readonly waitsFor: string | undefined;
}

/**
 * Checks every promise that can be checked on one order. All of them hold at every moment of an order's life, provided
 * that all sources were read at the same moment. The caller reads an order again before it believes a finding.
 */
export function checkOrder(books: OrderBooks, context: AuditContext): Verdict {
  const check = new OrderCheck(books, context);
  const waitsFor = whyOrderWaits(books);
  checkOrderExists(check);
  checkAuthorisations(check);
  if (waitsFor === undefined) checkProgress(check);
  checkFinalState(check);
  checkTopicOrder(check);
  checkEffectOnce(check);
  checkPublished(check);
  return { findings: check.findings, waitsFor };
}
