/** Reads orders from the services' databases, in pages and each database in one snapshot, so that its rows fit together. */
import type { ServiceName } from "../../../proto/event-table.ts";
import { inboxTableName, outboxArchiveTableName, outboxTableName, parkedKeyTableName } from "../../../relay/tables.ts";
import type { Queryable, Row } from "../../kit/database.ts";
import { byService, serviceNames, services } from "../../stack/services.ts";
import {
  type DatabaseBooks,
  type Databases,
  type EventRow,
  type InboxRow,
  type OrderRow,
  type PaymentRow,
  quantitiesBySku,
  type ReservationRow,
  type ServiceBooks,
} from "./books.ts";

type Query = Queryable["query"];

/** Orders by id, or a range of ids; `upTo` undefined means to the last one. */
export type Selection =
  | { readonly orderIds: readonly string[] }
  | { readonly after: string; readonly upTo: string | undefined };

/** The services that have a table of parked keys. A schema may be older than parking. */
export type ParkingServices = ReadonlySet<ServiceName>;

/** Finds the services that have a table of parked keys. */
export async function findParking(databases: Databases): Promise<ParkingServices> {
  const found = await Promise.all(
    serviceNames.map(async (service) => {
      const rows = await databases[service].query(
        "SELECT 1 AS found FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
        [parkedKeyTableName(service)],
      );
      return rows.length > 0 ? [service] : [];
    }),
  );
  return new Set(found.flat());
}

/** The order id that ends a page of at most `size` orders in every database; undefined for the last page. */
export async function endOfPage(databases: Databases, after: string, size: number): Promise<string | undefined> {
  const ends = await Promise.all(
    serviceNames.map(async (service) => {
      const [row] = await databases[service].query<{ id: string }>(
        `SELECT order_id AS id FROM ${services[service].aggregateTable}
          WHERE order_id > ? ORDER BY order_id LIMIT 1 OFFSET ?`,
        [after, size - 1],
      );
      return row?.id;
    }),
  );
  return ends.filter((id) => id !== undefined).sort()[0];
}

/** Runs `work` for all services at once and resolves to its results by service. */
export async function everyService<T>(
  work: (service: ServiceName) => Promise<T>,
): Promise<Readonly<Record<ServiceName, T>>> {
  const results = new Map(
    await Promise.all(serviceNames.map(async (service) => [service, await work(service)] as const)),
  );
  return byService((service) => results.get(service) as T);
}

/**
 * Reads the selected orders, also those that only one database knows. Order's database is read before the others: what
 * an order's status says about the other services was true before the status was written.
 */
export async function readDatabases(
  databases: Databases,
  parking: ParkingServices,
  selection: Selection,
): Promise<ReadonlyMap<string, DatabaseBooks>> {
  const read = (service: ServiceName) =>
    databases[service].snapshot(async (query) => ({
      aggregates: await readAggregates(query, service, selection),
      books: await readServiceBooks(query, service, parking.has(service), selection),
      now: await readNow(query),
    }));
  const order = read("order");
  const readings = await everyService(async (service) => {
    const orderReading = await order;
    return service === "order" ? orderReading : await read(service);
  });

  const readAt = byService((service) => readings[service].now);
  const orderIds = new Set(
    Object.values(readings).flatMap(({ aggregates, books }) => [...aggregates.keys(), ...books.keys()]),
  );
  if ("orderIds" in selection) for (const orderId of selection.orderIds) orderIds.add(orderId);
  return new Map(
    Array.from(orderIds, (orderId) => [
      orderId,
      {
        orderId,
        ...noAggregates,
        ...readings.order.aggregates.get(orderId),
        ...readings.inventory.aggregates.get(orderId),
        ...readings.payment.aggregates.get(orderId),
        ...byService((service) => readings[service].books.get(orderId) ?? noBooks),
        readAt,
      },
    ]),
  );
}

/** The rows of an order that hold a service's own business. */
type Aggregates = Pick<DatabaseBooks, "orderRow" | "reservation" | "paymentRow">;

const noAggregates: Aggregates = { orderRow: undefined, reservation: undefined, paymentRow: undefined };
const noBooks: ServiceBooks = { events: [], inbox: [], parked: undefined };

/** By order id. A service without promises about its own rows has none. */
async function readAggregates(
  query: Query,
  service: ServiceName,
  selection: Selection,
): Promise<ReadonlyMap<string, Partial<Aggregates>>> {
  switch (service) {
    case "order":
      return await readOrders(query, selection);
    case "inventory":
      return await readReservations(query, selection);
    case "payment":
      return await readPayments(query, selection);
    default:
      return new Map();
  }
}

async function readOrders(query: Query, selection: Selection) {
  const where = condition("order_id", selection);
  const rows = await query<
    Omit<OrderRow, "awaitsStock" | "awaitsPayment" | "lines"> & {
      orderId: string;
      awaitsStock: number;
      awaitsPayment: number;
      lines: string;
    }
  >(
    `SELECT order_id AS orderId, owner, request_id AS requestId, status, failure_reason AS failureReason,
            awaits_stock AS awaitsStock, awaits_payment AS awaitsPayment, version, lines_json AS \`lines\`,
            currency_code AS currencyCode, CAST(total_minor AS CHAR) AS totalMinor, payment_method AS paymentMethod,
            created_at AS createdAt, updated_at AS updatedAt
       FROM orders WHERE ${where.sql}`,
    where.values,
  );
  return new Map(
    rows.map(({ orderId, ...row }) => {
      const orderRow: OrderRow = {
        ...row,
        awaitsStock: row.awaitsStock === 1,
        awaitsPayment: row.awaitsPayment === 1,
        lines: quantitiesBySku(JSON.parse(row.lines)),
      };
      return [orderId, { orderRow }];
    }),
  );
}

async function readReservations(query: Query, selection: Selection) {
  const where = condition("order_id", selection);
  const rows = await query<{ orderId: string; status: ReservationRow["status"]; lines: string }>(
    `SELECT order_id AS orderId, status, held_lines AS \`lines\` FROM reservation WHERE ${where.sql}`,
    where.values,
  );
  return new Map(
    rows.map(({ orderId, status, lines }) => {
      const reservation: ReservationRow = { status, lines: quantitiesBySku(JSON.parse(lines)) };
      return [orderId, { reservation }];
    }),
  );
}

async function readPayments(query: Query, selection: Selection) {
  const where = condition("order_id", selection);
  const rows = await query<Row & PaymentRow & { orderId: string }>(
    `SELECT order_id AS orderId, status, currency_code AS currencyCode, CAST(amount_minor AS CHAR) AS amountMinor,
            authorization_id AS authorizationId, CAST(voided_minor AS CHAR) AS voidedMinor, refusal,
            attempts, next_attempt_at AS nextAttemptAt
       FROM payment WHERE ${where.sql}`,
    where.values,
  );
  return new Map(rows.map(({ orderId, ...paymentRow }) => [orderId, { paymentRow }]));
}

/** What a service's outbox, archive, inbox and parked keys hold, by order id. */
async function readServiceBooks(
  query: Query,
  service: ServiceName,
  hasParking: boolean,
  selection: Selection,
): Promise<ReadonlyMap<string, ServiceBooks>> {
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
  if (hasParking) {
    const keys = await query<{ orderId: string; error: string }>(
      `SELECT event.aggregate_id AS orderId, event.error FROM ${parkedKeyTableName(service)} AS event WHERE ${where.sql}`,
      where.values,
    );
    for (const { orderId, error } of keys) of(orderId).parked = error;
  }
  for (const { events } of books.values()) events.sort((a, b) => a.sequence - b.sequence);
  return books;
}

async function readNow(query: Query): Promise<Date> {
  const [clock] = await query<{ now: Date }>("SELECT CURRENT_TIMESTAMP(3) AS now");
  if (clock === undefined) throw new Error("SELECT CURRENT_TIMESTAMP(3) returned no row.");
  return clock.now;
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

/** Null if the headers are not JSON: the relay reports those. */
function causationOf(headers: string | null): string | null {
  try {
    const { causationId } = JSON.parse(headers ?? "{}") as { causationId?: unknown };
    return typeof causationId === "string" ? causationId : null;
  } catch {
    return null;
  }
}
