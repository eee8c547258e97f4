/**
 * Everything that the three databases know of some orders, in the auditor's own words: read in pages, each database in
 * one snapshot, so that a service's own rows always belong together.
 */
import { eventTable, type ServiceName } from "../../../proto/event-table.ts";
import {
  type InboxOutcome,
  inboxTableName,
  type OutboxStatus,
  outboxArchiveTableName,
  outboxTableName,
  parkedKeyTableName,
} from "../../../relay/tables.ts";
import type { ReservationStatus } from "../../inventory/domain.ts";
import type { Database, Queryable, Row } from "../../kit/database.ts";
import type { FailureReason, OrderStatus } from "../../order/domain.ts";
import type { PaymentStatus } from "../../payment/domain.ts";
import type { OrderLedger } from "./ledger.ts";
import type { Occurrence } from "./topic.ts";

export const services = ["order", "inventory", "payment"] as const satisfies readonly ServiceName[];

export type Databases = Readonly<Record<ServiceName, Database>>;

/** Pieces by SKU, sorted by SKU. */
export type Pieces = readonly (readonly [sku: string, quantity: number])[];

/** Minor units are decimal texts in all rows, so that they can be shown as JSON. */
export interface OrderRow {
  readonly owner: string;
  readonly requestId: string;
  readonly status: OrderStatus;
  readonly failureReason: FailureReason | null;
  readonly awaitsStock: boolean;
  readonly awaitsPayment: boolean;
  readonly version: number;
  readonly lines: Pieces;
  readonly currencyCode: string;
  readonly totalMinor: string;
  readonly paymentMethod: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface ReservationRow {
  readonly status: Exclude<ReservationStatus, "NONE">;
  readonly lines: Pieces;
}

export interface PaymentRow {
  readonly status: Exclude<PaymentStatus, "NONE">;
  readonly currencyCode: string | null;
  readonly amountMinor: string | null;
  readonly authorizationId: string | null;
  readonly voidedMinor: string | null;
  /** What the gateway said when it refused to void. */
  readonly refusal: string | null;
  readonly attempts: number;
  readonly nextAttemptAt: Date | null;
}

/** A row of a service's outbox or of its archive. */
export interface EventRow {
  readonly eventId: string;
  readonly type: string;
  readonly sequence: number;
  readonly status: OutboxStatus;
  readonly table: "outbox" | "archive";
  readonly payload: string;
  readonly causationId: string | null;
  readonly occurredAt: Date;
  readonly publishedAt: Date | null;
  readonly retryCount: number;
  readonly lastError: string | null;
  readonly nextAttemptAt: Date | null;
}

export interface InboxRow {
  readonly eventId: string;
  readonly type: string;
  readonly source: string;
  readonly outcome: InboxOutcome;
  readonly handledAt: Date;
}

/** What one service keeps of an order beside its own business. */
export interface ServiceBooks {
  /** In `seq` order. */
  readonly events: readonly EventRow[];
  readonly inbox: readonly InboxRow[];
  /** Why the order's key is parked there; undefined where it is not. */
  readonly parked: string | undefined;
}

/** What the three databases know of an order. */
export interface DatabaseBooks extends Readonly<Record<ServiceName, ServiceBooks>> {
  readonly orderId: string;
  readonly orderRow: OrderRow | undefined;
  readonly reservation: ReservationRow | undefined;
  readonly paymentRow: PaymentRow | undefined;
  /** When each database was read, by its own clock. */
  readonly readAt: Readonly<Record<ServiceName, Date>>;
}

/** What all sources know of an order. */
export interface OrderBooks extends DatabaseBooks {
  /** First occurrences, in the order of the topic. */
  readonly topic: readonly Occurrence[];
  readonly ledger: OrderLedger;
}

/** Orders by their ids, or those between two ids; `upTo` undefined: to the last. */
export type Selection =
  | { readonly orderIds: readonly string[] }
  | { readonly after: string; readonly upTo: string | undefined };

/** The services that have tables of parked keys: a schema may be older than they are. */
export type ParkingServices = ReadonlySet<ServiceName>;

/** Longer than any page takes; a database that hangs ends the audit with an error. */
const statementTimeoutMs = 60_000;

/** Runs `work` on one moment of the database, however long it takes. */
export async function inSnapshot<T>(database: Database, work: (query: Queryable["query"]) => Promise<T>): Promise<T> {
  const connection = await database.pool.getConnection();
  const run = (sql: string, values: readonly unknown[] = []) =>
    connection.query({ sql, timeout: statementTimeoutMs }, values as unknown[]);
  let healthy = false;
  try {
    await run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    await run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
    const result = await work(async <R>(sql: string, values?: readonly unknown[]) => {
      const [rows] = await run(sql, values);
      return rows as R[];
    });
    await run("COMMIT");
    healthy = true;
    return result;
  } finally {
    if (healthy) connection.release();
    else connection.destroy();
  }
}

/** Finds out which services can park. */
export async function findParking(databases: Databases): Promise<ParkingServices> {
  const found = await Promise.all(
    services.map(async (service) => {
      const rows = await databases[service].query(
        "SELECT 1 AS found FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
        [parkedKeyTableName(service)],
      );
      return rows.length > 0 ? [service] : [];
    }),
  );
  return new Set(found.flat());
}

/**
 * Reads what the databases know of the selected orders; an order that only one of them knows is among them. Order's
 * database is read first: what an order's status promises of the others was true before it was written.
 */
export async function readDatabases(
  databases: Databases,
  parking: ParkingServices,
  selection: Selection,
): Promise<ReadonlyMap<string, DatabaseBooks>> {
  const order = await inSnapshot(databases.order, async (query) => ({
    own: await readOrders(query, selection),
    common: await readService(query, "order", parking, selection),
  }));
  const [inventory, payment] = await Promise.all([
    inSnapshot(databases.inventory, async (query) => ({
      own: await readReservations(query, selection),
      common: await readService(query, "inventory", parking, selection),
    })),
    inSnapshot(databases.payment, async (query) => ({
      own: await readPayments(query, selection),
      common: await readService(query, "payment", parking, selection),
    })),
  ]);
  const readAt = { order: order.common.now, inventory: inventory.common.now, payment: payment.common.now };
  const orderIds = new Set(
    [order, inventory, payment].flatMap(({ own, common }) => [...own.keys(), ...common.books.keys()]),
  );
  if ("orderIds" in selection) for (const orderId of selection.orderIds) orderIds.add(orderId);
  return new Map(
    Array.from(orderIds, (orderId) => [
      orderId,
      {
        orderId,
        orderRow: order.own.get(orderId),
        reservation: inventory.own.get(orderId),
        paymentRow: payment.own.get(orderId),
        order: order.common.books.get(orderId) ?? noBooks,
        inventory: inventory.common.books.get(orderId) ?? noBooks,
        payment: payment.common.books.get(orderId) ?? noBooks,
        readAt,
      },
    ]),
  );
}

const noBooks: ServiceBooks = { events: [], inbox: [], parked: undefined };

/** The order id that ends a page of at most `size` orders in each database; undefined for the last page. */
export async function endOfPage(databases: Databases, after: string, size: number): Promise<string | undefined> {
  const tables = { order: "orders", inventory: "reservation", payment: "payment" } as const;
  const ends = await Promise.all(
    services.map(async (service) => {
      const [row] = await databases[service].query<{ id: string }>(
        `SELECT order_id AS id FROM ${tables[service]} WHERE order_id > ? ORDER BY order_id LIMIT 1 OFFSET ?`,
        [after, size - 1],
      );
      return row?.id;
    }),
  );
  return ends.filter((id) => id !== undefined).sort()[0];
}

const publisherByType: ReadonlyMap<string, ServiceName> = new Map(
  eventTable.map(({ schema, publishedBy }) => [schema.typeName, publishedBy]),
);

/** Who publishes events of this type; undefined for a type that is not the saga's. */
export function publisherOf(type: string): ServiceName | undefined {
  return publisherByType.get(type);
}

/** Adds up lines, which may have a SKU twice. */
export function piecesOf(lines: readonly { readonly sku: string; readonly quantity: number }[]): Pieces {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of lines) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  return [...quantities].sort(([a], [b]) => (a < b ? -1 : 1));
}

function condition(
  column: string,
  selection: Selection,
): { readonly sql: string; readonly values: readonly unknown[] } {
  if ("orderIds" in selection) return { sql: `${column} IN (?)`, values: [selection.orderIds] };
  const { after, upTo } = selection;
  if (upTo === undefined) return { sql: `${column} > ?`, values: [after] };
  return { sql: `${column} > ? AND ${column} <= ?`, values: [after, upTo] };
}

async function readOrders(query: Queryable["query"], selection: Selection): Promise<ReadonlyMap<string, OrderRow>> {
  const where = condition("order_id", selection);
  const rows = await query<{
    order_id: string;
    owner: string;
    request_id: string;
    status: OrderStatus;
    failure_reason: FailureReason | null;
    awaits_stock: number;
    awaits_payment: number;
    version: number;
    lines_json: string;
    currency_code: string;
    total_minor: string;
    payment_method: string;
    created_at: Date;
    updated_at: Date;
  }>(
    `SELECT order_id, owner, request_id, status, failure_reason, awaits_stock, awaits_payment, version, lines_json,
            currency_code, CAST(total_minor AS CHAR) AS total_minor, payment_method, created_at, updated_at
       FROM orders WHERE ${where.sql}`,
    where.values,
  );
  return new Map(
    rows.map((row) => [
      row.order_id,
      {
        owner: row.owner,
        requestId: row.request_id,
        status: row.status,
        failureReason: row.failure_reason,
        awaitsStock: row.awaits_stock === 1,
        awaitsPayment: row.awaits_payment === 1,
        version: row.version,
        lines: piecesOf(JSON.parse(row.lines_json)),
        currencyCode: row.currency_code,
        totalMinor: row.total_minor,
        paymentMethod: row.payment_method,
        createdAt: row.created_at,
        updatedAt: row.updated_at,
      },
    ]),
  );
}

async function readReservations(
  query: Queryable["query"],
  selection: Selection,
): Promise<ReadonlyMap<string, ReservationRow>> {
  const where = condition("order_id", selection);
  const rows = await query<{ order_id: string; status: ReservationRow["status"]; held_lines: string }>(
    `SELECT order_id, status, held_lines FROM reservation WHERE ${where.sql}`,
    where.values,
  );
  return new Map(
    rows.map((row) => [row.order_id, { status: row.status, lines: piecesOf(JSON.parse(row.held_lines)) }]),
  );
}

async function readPayments(query: Queryable["query"], selection: Selection): Promise<ReadonlyMap<string, PaymentRow>> {
  const where = condition("order_id", selection);
  const rows = await query<Row & PaymentRow & { orderId: string }>(
    `SELECT order_id AS orderId, status, currency_code AS currencyCode, CAST(amount_minor AS CHAR) AS amountMinor,
            authorization_id AS authorizationId, CAST(voided_minor AS CHAR) AS voidedMinor, refusal,
            attempts, next_attempt_at AS nextAttemptAt
       FROM payment WHERE ${where.sql}`,
    where.values,
  );
  return new Map(rows.map(({ orderId, ...row }) => [orderId, row]));
}

async function readService(
  query: Queryable["query"],
  service: ServiceName,
  parking: ParkingServices,
  selection: Selection,
): Promise<{ readonly now: Date; readonly books: ReadonlyMap<string, ServiceBooks> }> {
  const books = new Map<string, { events: EventRow[]; inbox: InboxRow[]; parked: string | undefined }>();
  const of = (orderId: string) => {
    const found = books.get(orderId) ?? { events: [], inbox: [], parked: undefined };
    books.set(orderId, found);
    return found;
  };
  const where = condition("event.aggregate_id", selection);
  for (const table of ["outbox", "archive"] as const) {
    const name = table === "outbox" ? outboxTableName(service) : outboxArchiveTableName(service);
    const rows = await query<
      Omit<EventRow, "table" | "causationId"> & { orderId: string; sequence: number | string; headers: string | null }
    >(
      `SELECT event.aggregate_id AS orderId, event.id AS eventId, event.type, event.seq AS sequence, event.status,
              event.payload, event.headers, event.occurred_at AS occurredAt, event.published_at AS publishedAt,
              event.retry_count AS retryCount, event.last_error AS lastError,
              ${table === "outbox" ? "event.next_attempt_at" : "NULL"} AS nextAttemptAt
         FROM ${name} AS event WHERE ${where.sql}`,
      where.values,
    );
    for (const { orderId, headers, ...row } of rows) {
      of(orderId).events.push({ ...row, sequence: Number(row.sequence), table, causationId: causationOf(headers) });
    }
  }
  const inbox = await query<Row & InboxRow & { orderId: string }>(
    `SELECT event.aggregate_id AS orderId, event.event_id AS eventId, event.type, event.source, event.outcome,
            event.handled_at AS handledAt
       FROM ${inboxTableName(service)} AS event WHERE ${where.sql}`,
    where.values,
  );
  for (const { orderId, ...row } of inbox) of(orderId).inbox.push(row);
  if (parking.has(service)) {
    const keys = await query<{ orderId: string; error: string }>(
      `SELECT event.aggregate_id AS orderId, event.error FROM ${parkedKeyTableName(service)} AS event WHERE ${where.sql}`,
      where.values,
    );
    for (const { orderId, error } of keys) of(orderId).parked = error;
  }
  for (const { events } of books.values()) events.sort((a, b) => a.sequence - b.sequence);
  const [clock] = await query<{ now: Date }>("SELECT CURRENT_TIMESTAMP(3) AS now");
  if (clock === undefined) throw new Error("The database does not tell the time.");
  return { now: clock.now, books };
}

/** Null also where the headers are no JSON: the relay deals with those. */
function causationOf(headers: string | null): string | null {
  try {
    const { causationId } = JSON.parse(headers ?? "{}") as { causationId?: unknown };
    return typeof causationId === "string" ? causationId : null;
  } catch {
    return null;
  }
}
