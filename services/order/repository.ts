/** Reads and writes Order's rows. Batch operations are raw SQL: one statement for any number of orders. */
import type { EventHeaders, NewEvent } from "../../proto/envelope.ts";
import type { Outbox } from "../../relay/outbox/append.ts";
import type { Database, Queryable, Transaction } from "../kit/database.ts";
import type { DriverRow } from "../kit/driver-row.ts";
import { DomainError, UnreadableRowError } from "../kit/errors.ts";
import { type Statement, updateStatements } from "../kit/statements.ts";
import { childTraceparent } from "../kit/traceparent.ts";
import type { FailureReason, OrderState, OrderStatus } from "./domain.ts";
import { type NewOrder, type OrderLine, type Price, sameRequest } from "./placement.ts";
import type { orders, prices } from "./schema.ts";

/** An order as clients see it. */
export interface OrderView {
  readonly orderId: string;
  readonly status: OrderStatus;
  readonly failureReason: FailureReason | undefined;
  readonly version: number;
  readonly lines: readonly OrderLine[];
  readonly total: Price;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** A new order and the event that publishes it. */
export interface Placement {
  readonly order: NewOrder;
  readonly event: NewEvent;
}

/** The result of a placement: the order that now exists, or the caller's mistake. */
export type PlacementResult =
  | { readonly orderId: string; readonly status: OrderStatus; readonly isNew: boolean }
  | DomainError;

type OrderRow = DriverRow<typeof orders>;

/** The columns that make up an order's state in the saga. */
type StateRow = Pick<
  OrderRow,
  "order_id" | "version" | "status" | "failure_reason" | "awaits_stock" | "awaits_payment"
>;
type LockedRow = StateRow & Pick<OrderRow, "request_id" | "traceparent">;
type RequestRow = Pick<
  OrderRow,
  "order_id" | "owner" | "request_id" | "status" | "lines_json" | "currency_code" | "payment_method"
>;
type ViewRow = Pick<
  OrderRow,
  | "order_id"
  | "status"
  | "failure_reason"
  | "version"
  | "lines_json"
  | "currency_code"
  | "total_minor"
  | "created_at"
  | "updated_at"
>;

/**
 * Places orders, each with its event, in one transaction and one round trip. Assumes that no request was placed before.
 * @param deadlineMs after this time an undecided order is timed out.
 * @throws an error for which `isDuplicateKey` is true if a request was placed before; then no order is placed.
 */
export async function placeNewOrders(
  database: Database,
  outbox: Outbox,
  placements: readonly Placement[],
  deadlineMs: number,
): Promise<readonly PlacementResult[]> {
  await database.commit(placementStatements(outbox, placements, deadlineMs));
  return placements.map(newOrderResult);
}

/**
 * Like {@link placeNewOrders}, but looks for existing orders first: a request that was placed before returns that order.
 * So it is safe to repeat after a lost answer to COMMIT. No two placements may have the same owner and request id.
 */
export async function findOrPlaceOrders(
  database: Database,
  outbox: Outbox,
  placements: readonly Placement[],
  deadlineMs: number,
): Promise<readonly PlacementResult[]> {
  return await database.transaction(async (transaction) => {
    const existing = await findByRequest(transaction, placements);
    const missing = placements.filter(({ order }) => !existing.has(requestKey(order.owner, order.requestId)));
    // If another instance places one of these requests in the meantime, this fails with a duplicate key and the caller
    // repeats the whole transaction.
    if (missing.length > 0) await transaction.pipeline(placementStatements(outbox, missing, deadlineMs));
    return placements.map((placement) => {
      const { order } = placement;
      const row = existing.get(requestKey(order.owner, order.requestId));
      if (row === undefined) return newOrderResult(placement);
      const placed = { lines: decodeLines(row.lines_json, row.currency_code), paymentMethod: row.payment_method };
      if (sameRequest(placed, order)) {
        // A row with our id was committed by the previous attempt, whose answer was lost: it is not counted yet.
        return { orderId: row.order_id, status: row.status, isNew: row.order_id === order.orderId };
      }
      return new DomainError(
        "ALREADY_EXISTS",
        `request_id ${order.requestId} was already used for an order with other lines or another payment method; use a new request_id for a new order.`,
      );
    });
  });
}

function placementStatements(
  outbox: Outbox,
  placements: readonly Placement[],
  deadlineMs: number,
): readonly Statement[] {
  return [insertOrders(placements, deadlineMs), ...outbox.statements(placements.map(({ event }) => event))];
}

function newOrderResult({ order }: Placement): PlacementResult {
  return { orderId: order.orderId, status: "PENDING", isNew: true };
}

const orderColumns = [
  "order_id",
  "owner",
  "request_id",
  "status",
  "version",
  "lines_json",
  "currency_code",
  "total_minor",
  "payment_method",
  "traceparent",
] as const;

function insertOrders(placements: readonly Placement[], deadlineMs: number): Statement {
  const rows = placements.map(({ order, event }) => [
    order.orderId,
    order.owner,
    order.requestId,
    "PENDING",
    1,
    encodeLines(order.lines),
    order.total.currencyCode,
    order.total.minorUnits,
    order.paymentMethod,
    event.headers.traceparent ?? null,
  ]);
  // The database's clock sets the deadline, because the deadline is later compared with that clock.
  const row = `(${orderColumns.map(() => "?").join(", ")}, CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND)`;
  return {
    sql: `INSERT INTO orders (${orderColumns.join(", ")}, deadline_at) VALUES ${rows.map(() => row).join(", ")}`,
    values: rows.flatMap((values) => [...values, deadlineMs * 1_000]),
  };
}

async function findByRequest(
  transaction: Transaction,
  placements: readonly Placement[],
): Promise<ReadonlyMap<string, RequestRow>> {
  const rows = await transaction.query<RequestRow>(
    `SELECT order_id, owner, request_id, status, lines_json, currency_code, payment_method
       FROM orders WHERE (owner, request_id) IN (?)`,
    [placements.map(({ order }) => [order.owner, order.requestId])],
  );
  return new Map(rows.map((row) => [requestKey(row.owner, row.request_id), row]));
}

/** One owner's request as a map key. */
export function requestKey(owner: string, requestId: string): string {
  return `${requestId} ${owner}`;
}

/** A locked order and its age by the database's clock. */
export interface LockedOrderWithAge {
  readonly state: OrderState;
  readonly ageSeconds: number;
}

/** Locks the orders' rows, in the order of their ids, and reads their states. Leaves out unknown ids. */
export async function lockOrders(
  transaction: Transaction,
  orderIds: readonly string[],
): Promise<ReadonlyMap<string, LockedOrderWithAge>> {
  // FORCE INDEX: on a small table the optimizer may scan. A scan would wait for the locks of other orders, and could
  // deadlock, because it does not lock in the order of the ids.
  const rows = await transaction.query<StateRow & { age_seconds: number | string }>(
    `SELECT order_id, version, status, failure_reason, awaits_stock, awaits_payment,
            TIMESTAMPDIFF(MICROSECOND, created_at, CURRENT_TIMESTAMP(3)) / 1000000 AS age_seconds
       FROM orders FORCE INDEX (PRIMARY) WHERE order_id IN (?) ORDER BY order_id FOR UPDATE`,
    [orderIds],
  );
  return new Map(rows.map((row) => [row.order_id, { state: stateOf(row), ageSeconds: Number(row.age_seconds) }]));
}

/** A locked order, with the headers of the events that a command publishes for it. */
export interface LockedOrderWithHeaders {
  readonly state: OrderState;
  readonly headers: EventHeaders;
}

/** Locks one order's row. Returns undefined if there is none. */
export async function lockOrder(
  transaction: Transaction,
  orderId: string,
): Promise<LockedOrderWithHeaders | undefined> {
  const [row] = await transaction.query<LockedRow>(`${lockedOrderSelect} WHERE order_id = ? FOR UPDATE`, [orderId]);
  return row === undefined ? undefined : lockedOrderOf(row);
}

/** The statuses in which an order has a deadline. */
const undecidedStatuses: readonly OrderStatus[] = ["PENDING", "STOCK_RESERVED"];
const knownStatuses: readonly OrderStatus[] = [...undecidedStatuses, "COMPLETED", "COMPENSATING", "FAILED"];

/**
 * Locks at most `countMax` orders whose deadline had passed at `asOf`, the longest overdue first. Skips orders that are
 * locked already, and those in a status that this version does not know.
 */
export async function lockOverdueOrders(
  transaction: Transaction,
  asOf: Date,
  countMax: number,
): Promise<readonly LockedOrderWithHeaders[]> {
  // FORCE INDEX: a scan would read all orders, final ones included, and lock each of them for a moment.
  const rows = await transaction.query<LockedRow>(
    `${lockedOrderSelect} FORCE INDEX (orders_deadline_at)
      WHERE deadline_at <= ? AND status IN (?) ORDER BY deadline_at LIMIT ? FOR UPDATE SKIP LOCKED`,
    [asOf, undecidedStatuses, countMax],
  );
  return rows.map(lockedOrderOf);
}

/**
 * The number of orders in each status that is not final; UNKNOWN for undecided orders in a status of another version. Reads
 * only these orders, by two indexes.
 */
export async function countOrdersInFlight(database: Queryable): Promise<ReadonlyMap<string, number>> {
  const rows = await database.query<{ status: string; orders: number | string }>(
    `SELECT IF(status IN (?), status, 'UNKNOWN') AS status, COUNT(*) AS orders
       FROM orders FORCE INDEX (orders_deadline_at) WHERE deadline_at IS NOT NULL GROUP BY 1
     UNION ALL
     SELECT 'COMPENSATING', COUNT(*) FROM orders FORCE INDEX (orders_compensating_since)
      WHERE compensating_since IS NOT NULL AND status = 'COMPENSATING'`,
    [knownStatuses],
  );
  return new Map(rows.map(({ status, orders }) => [status, Number(orders)]));
}

const lockedOrderSelect = `SELECT order_id, version, status, failure_reason, awaits_stock, awaits_payment, request_id,
  traceparent FROM orders`;

function lockedOrderOf(row: LockedRow): LockedOrderWithHeaders {
  const traceparent = childTraceparent(row.traceparent ?? undefined);
  return { state: stateOf(row), headers: { traceparent, correlationId: row.request_id } };
}

/** Stores why the owner cancelled an order. The row must be locked. */
export async function saveCancelReason(transaction: Transaction, orderId: string, reason: string): Promise<void> {
  await transaction.execute("UPDATE orders SET cancel_reason = ? WHERE order_id = ?", [reason, orderId]);
}

/**
 * Statements that write the orders' new states. The rows must be locked. The guard on the version turns a forgotten lock
 * into an error instead of a lost update.
 */
export function updateOrders(
  changes: readonly { readonly before: OrderState; readonly after: OrderState }[],
): readonly Statement[] {
  return updateStatements({
    table: "orders",
    columns: ["order_id", "status", "failure_reason", "awaits_stock", "awaits_payment", "version"],
    inputs: ["version_before"],
    rows: changes.map(({ before, after }) => {
      const awaiting = after.status === "COMPENSATING" ? after.awaiting : { stock: false, payment: false };
      const failureReason = "failureReason" in after ? after.failureReason : null;
      return [
        after.orderId,
        after.status,
        failureReason,
        Number(awaiting.stock),
        Number(awaiting.payment),
        after.version,
        before.version,
      ];
    }),
    also: `target.updated_at = CURRENT_TIMESTAMP(3),
      target.deadline_at = IF(next.status IN ('PENDING', 'STOCK_RESERVED'), target.deadline_at, NULL),
      target.compensating_since =
        IF(next.status = 'COMPENSATING', COALESCE(target.compensating_since, CURRENT_TIMESTAMP(3)), NULL)`,
    guard: "target.version = next.version_before",
  });
}

/** The most ids in one SELECT. From 1,000 on, MariaDB would turn the list into a temporary table. */
const readSizeMax = 500;

/** The orders with these ids, in any order, in one round trip. Leaves out unknown ids. */
export async function readOrders(database: Queryable, orderIds: readonly string[]): Promise<readonly OrderView[]> {
  const statements: Statement[] = [];
  for (let first = 0; first < orderIds.length; first += readSizeMax) {
    statements.push({
      sql: `SELECT order_id, status, failure_reason, version, lines_json, currency_code, total_minor, created_at, updated_at
              FROM orders WHERE order_id IN (?)`,
      values: [orderIds.slice(first, first + readSizeMax)],
    });
  }
  const rows = (await database.pipeline(statements)).flat() as ViewRow[];
  return rows.map((row) => ({
    orderId: row.order_id,
    status: row.status,
    failureReason: row.failure_reason ?? undefined,
    version: row.version,
    lines: decodeLines(row.lines_json, row.currency_code),
    total: { currencyCode: row.currency_code, minorUnits: BigInt(row.total_minor) },
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }));
}

/** The whole price list, by SKU. */
export async function readPrices(database: Queryable): Promise<ReadonlyMap<string, Price>> {
  const rows = await database.query<DriverRow<typeof prices>>("SELECT sku, currency_code, minor_units FROM price");
  return new Map(
    rows.map(({ sku, currency_code: currencyCode, minor_units: minorUnits }) => [
      sku,
      { currencyCode, minorUnits: BigInt(minorUnits) },
    ]),
  );
}

function stateOf(row: StateRow): OrderState {
  const common = { orderId: row.order_id, version: row.version };
  switch (row.status) {
    case "PENDING":
    case "STOCK_RESERVED":
    case "COMPLETED":
      return { ...common, status: row.status };
    case "COMPENSATING":
      return {
        ...common,
        status: row.status,
        failureReason: reasonOf(row),
        awaiting: { stock: row.awaits_stock === 1, payment: row.awaits_payment === 1 },
      };
    case "FAILED":
      return { ...common, status: row.status, failureReason: reasonOf(row) };
    default:
      return unknownStatus(row.order_id, row.status);
  }
}

function unknownStatus(orderId: string, status: never): never {
  throw new UnreadableRowError(`Order ${orderId} is ${status}, a status that this version does not know.`);
}

function reasonOf(row: StateRow): FailureReason {
  if (row.failure_reason === null)
    throw new UnreadableRowError(`Order ${row.order_id} is ${row.status} without a failure_reason.`);
  return row.failure_reason;
}

/** A line in the column `lines_json`. */
interface StoredLine {
  readonly sku: string;
  readonly quantity: number;
  /** A decimal number as text: JSON has no BIGINT. */
  readonly unitPriceMinor: string;
}

function encodeLines(lines: readonly OrderLine[]): string {
  return JSON.stringify(
    lines.map(
      ({ sku, quantity, unitPrice }): StoredLine => ({
        sku,
        quantity,
        unitPriceMinor: unitPrice.minorUnits.toString(),
      }),
    ),
  );
}

function decodeLines(json: string, currencyCode: string): readonly OrderLine[] {
  return (JSON.parse(json) as readonly StoredLine[]).map(({ sku, quantity, unitPriceMinor }) => ({
    sku,
    quantity,
    unitPrice: { currencyCode, minorUnits: BigInt(unitPriceMinor) },
  }));
}
