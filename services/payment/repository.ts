/** Reads and writes Payment's rows: one statement for any number of orders. */
import type { Cause } from "../../relay/outbox/append.ts";
import type { Database, Queryable, Transaction } from "../kit/database.ts";
import type { DriverRow } from "../kit/driver-row.ts";
import { UnreadableRowError } from "../kit/errors.ts";
import { insertStatements, type SqlValue, type Statement, updateStatements } from "../kit/statements.ts";
import { nextCall, type PaymentState, type PaymentStatus, type Terms } from "./domain.ts";
import type { payment } from "./schema.ts";

/** A payment and its pending gateway call. */
export interface Payment {
  readonly state: PaymentState;
  /** Defined if and only if `nextCall(state)` is. */
  readonly pending: PendingCall | undefined;
}

export interface PendingCall {
  /** The event that the call's outcome answers. */
  readonly cause: Cause;
  /** Attempts so far, including the current one. */
  readonly attempts: number;
  /** By the database's clock. */
  readonly dueAt: Date;
}

const columns = [
  "order_id",
  "status",
  "currency_code",
  "amount_minor",
  "payment_method",
  "authorization_id",
  "voided_minor",
  "refusal",
  "cause",
  "attempts",
  "next_attempt_at",
] as const;

type PaymentRow = Pick<DriverRow<typeof payment>, (typeof columns)[number]>;

/** The statuses in which a payment waits for a gateway call. */
export const pendingStatuses: readonly PaymentStatus[] = ["AUTHORIZING", "VOIDING", "VOID_REFUSED"];

export interface LockedPayments {
  readonly payments: ReadonlyMap<string, Payment>;
  /** The orders whose payment this version cannot read, and why. */
  readonly unreadable: ReadonlyMap<string, UnreadableRowError>;
  /** By the database's clock. */
  readonly now: Date;
}

/** Locks the orders' payments, in the order of their ids, and reads the database's time. Leaves out orders without a payment. */
export async function lockPayments(transaction: Transaction, orderIds: readonly string[]): Promise<LockedPayments> {
  const [rows = [], clock = []] = await transaction.pipeline([
    {
      // FORCE INDEX: on a small table the optimizer may scan, and a scan would block on other orders' locks, in any order.
      sql: `SELECT ${columns.join(", ")} FROM payment FORCE INDEX (PRIMARY)
        WHERE order_id IN (?) ORDER BY order_id FOR UPDATE`,
      values: [orderIds],
    },
    // Read after the wait for the locks, because leases start at this time.
    { sql: "SELECT CURRENT_TIMESTAMP(3) AS now", values: [] },
  ]);
  return { ...readPayments(rows as PaymentRow[]), now: clock[0]?.now as Date };
}

/** Reads each row by itself, so that one that cannot be read harms no other. */
function readPayments(rows: readonly PaymentRow[]): Omit<LockedPayments, "now"> {
  const payments = new Map<string, Payment>();
  const unreadable = new Map<string, UnreadableRowError>();
  for (const row of rows) {
    try {
      payments.set(row.order_id, paymentOf(row));
    } catch (error) {
      if (!(error instanceof UnreadableRowError)) throw error;
      unreadable.set(row.order_id, error);
    }
  }
  return { payments, unreadable };
}

/**
 * How long a claim lasts: longer than the call's timeout, with time left to record the outcome. If no outcome is recorded
 * by then, any instance may claim the payment and repeat the call.
 */
export const leaseMs = 5_000;

/** The payment, claimed by the transaction that writes it; unchanged if no call is pending. */
export function claim({ state, pending }: Payment, now: Date): Payment {
  if (pending === undefined) return { state, pending };
  const dueAt = new Date(now.getTime() + leaseMs);
  return { state, pending: { ...pending, attempts: pending.attempts + 1, dueAt } };
}

/**
 * Claims at most `limit` payments whose call is due. Several instances may call it at once. Payments in a status that this
 * version does not know are left to the version that does. Damaged rows are claimed too, so that they do not fill the limit
 * for ever, and returned as unreadable.
 */
export async function claimDuePayments(
  database: Database,
  options: { readonly limit: number; readonly leaseMs?: number },
): Promise<{ readonly claimed: readonly Payment[]; readonly unreadable: readonly UnreadableRowError[] }> {
  const rows = await database.transaction(async (transaction) => {
    const due = await transaction.query<PaymentRow>(
      // FORCE INDEX: a scan of the table would lock every row that it reads, not only those that it claims.
      `SELECT ${columns.join(", ")} FROM payment FORCE INDEX (payment_next_attempt_at)
        WHERE next_attempt_at <= CURRENT_TIMESTAMP(3) AND status IN (?)
        ORDER BY next_attempt_at LIMIT ? FOR UPDATE SKIP LOCKED`,
      [pendingStatuses, options.limit],
    );
    if (due.length === 0) return [];
    await transaction.execute(
      `UPDATE payment FORCE INDEX (PRIMARY)
          SET next_attempt_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND, attempts = attempts + 1
        WHERE order_id IN (?)`,
      [(options.leaseMs ?? leaseMs) * 1_000, due.map((row) => row.order_id)],
    );
    return due.map((row) => ({ ...row, attempts: row.attempts + 1 }));
  });
  const { payments, unreadable } = readPayments(rows);
  return { claimed: [...payments.values()], unreadable: [...unreadable.values()] };
}

/**
 * The number of payments that wait for a gateway call, by status; UNKNOWN for all statuses in which this version knows of
 * no call. Reads only these payments.
 */
export async function countPendingCalls(database: Queryable): Promise<ReadonlyMap<string, number>> {
  const rows = await database.query<{ status: string; payments: number | string }>(
    `SELECT IF(status IN (?), status, 'UNKNOWN') AS status, COUNT(*) AS payments
       FROM payment FORCE INDEX (payment_next_attempt_at) WHERE next_attempt_at IS NOT NULL GROUP BY 1`,
    [pendingStatuses],
  );
  return new Map(rows.map(({ status, payments }) => [status, Number(payments)]));
}

/** Inserts new payments. Fails with a duplicate key if another instance inserted one first. */
export function insertPayments(payments: readonly Payment[]): readonly Statement[] {
  return insertStatements("payment", columns, payments.map(toRow));
}

/** Updates existing payments. Their rows must be locked. */
export function updatePayments(payments: readonly Payment[]): readonly Statement[] {
  return updateStatements({
    table: "payment",
    columns,
    rows: payments.map(toRow),
    also: "target.updated_at = CURRENT_TIMESTAMP(3)",
  });
}

function toRow({ state, pending }: Payment): readonly SqlValue[] {
  const terms = "terms" in state ? state.terms : undefined;
  return [
    state.orderId,
    state.status,
    terms?.amount.currencyCode ?? null,
    terms?.amount.minorUnits ?? null,
    terms?.paymentMethod ?? null,
    ("authorizationId" in state ? state.authorizationId : undefined) ?? null,
    state.status === "VOIDED" ? state.voidedAmount.minorUnits : null,
    state.status === "VOID_REFUSED" ? state.refusal : null,
    pending === undefined ? null : JSON.stringify(pending.cause),
    pending?.attempts ?? 0,
    pending?.dueAt ?? null,
  ];
}

function paymentOf(row: PaymentRow): Payment {
  const state = stateOf(row);
  if (nextCall(state) === undefined) return { state, pending: undefined };
  const { cause, attempts, next_attempt_at: dueAt } = row;
  if (cause === null || dueAt === null) throw damaged(row, "cause and next_attempt_at");
  return { state, pending: { cause: causeIn(row, cause), attempts, dueAt } };
}

function causeIn(row: PaymentRow, json: string): Cause {
  try {
    return JSON.parse(json) as Cause;
  } catch {
    throw damaged(row, "a cause in JSON");
  }
}

function stateOf(row: PaymentRow): PaymentState {
  const { order_id: orderId, status } = row;
  const authorizationId = row.authorization_id ?? undefined;
  switch (status) {
    case "NOTED":
    case "AUTHORIZING":
    case "DECLINED":
      return { orderId, status, terms: requiredTermsOf(row) };
    case "AUTHORIZED":
      if (authorizationId === undefined) throw damaged(row, "authorization_id");
      return { orderId, status, terms: requiredTermsOf(row), authorizationId };
    case "VOIDING":
      return { orderId, status, terms: requiredTermsOf(row), authorizationId };
    case "VOID_REFUSED":
      return { orderId, status, terms: requiredTermsOf(row), authorizationId, refusal: row.refusal ?? "" };
    case "VOIDED": {
      const terms = termsOf(row);
      const currencyCode = terms?.amount.currencyCode ?? "XXX";
      const voidedAmount = { currencyCode, minorUnits: BigInt(row.voided_minor ?? 0) };
      return { orderId, status, voidedAmount, terms, authorizationId };
    }
    default:
      return unknownStatus(orderId, status);
  }
}

function termsOf(row: PaymentRow): Terms | undefined {
  const { currency_code: currencyCode, amount_minor: amountMinor, payment_method: paymentMethod } = row;
  if (currencyCode === null || amountMinor === null || paymentMethod === null) return undefined;
  return { amount: { currencyCode, minorUnits: BigInt(amountMinor) }, paymentMethod };
}

function requiredTermsOf(row: PaymentRow): Terms {
  const terms = termsOf(row);
  if (terms === undefined) throw damaged(row, "amount and payment method");
  return terms;
}

function damaged(row: PaymentRow, missing: string): UnreadableRowError {
  return new UnreadableRowError(`The payment of order ${row.order_id} is ${row.status} without ${missing}.`);
}

function unknownStatus(orderId: string, status: never): never {
  throw new UnreadableRowError(
    `The payment of order ${orderId} is ${status}, a status that this version does not know.`,
  );
}
