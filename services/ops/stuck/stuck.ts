/** Finds the orders that are not final after some time: what each waits for, which service owes it, and why it is late. */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { OrderState, OrderStatus } from "../../order/domain.ts";
import { byService, serviceNames } from "../../stack/services.ts";
import type {
  DatabaseBooks,
  Databases,
  EventRow,
  InboxRow,
  OrderRow,
  PaymentRow,
  ReservationRow,
} from "../audit/books.ts";
import { findParking, readDatabases } from "../audit/databases.ts";
import { type Owed, owedTo } from "./owed.ts";

/** What the debtor's own database says about the order: this is where to look for the cause. */
export interface Knowledge {
  /** What became of the event that it owes a reaction to; null if it has not received the event. */
  readonly inbox: Pick<InboxRow, "outcome" | "handledAt"> | null;
  /** Its own undelivered events of the order. For the relay: the event that it owes, and those before it. */
  readonly undelivered: readonly Undelivered[];
  /** Why the order's key is parked there; null if it is not. */
  readonly parked: string | null;
  /** Inventory's or payment's row of the order; null if there is none. */
  readonly row: ReservationRow | PaymentRow | null;
}

/** An event that is not on the topic. */
export type Undelivered = Pick<EventRow, "eventId" | "type" | "status" | "retryCount" | "lastError" | "nextAttemptAt">;

export interface Debt extends Owed {
  readonly knows: Knowledge;
}

export interface StuckOrder {
  readonly orderId: string;
  readonly status: OrderStatus;
  /** Time since the order was placed, by the clock of Order's database. */
  readonly ageMs: number;
  /** Time since the order's last status change. */
  readonly unchangedMs: number;
  /** Empty if no event on its way can move the order: something was lost. */
  readonly owed: readonly Debt[];
}

export interface StuckReport {
  /** The oldest of them. */
  readonly orders: readonly StuckOrder[];
  /** How many there are in all. */
  readonly total: number;
}

/** @param options.limit how many orders are described; the report counts all of them. */
export async function findStuck(
  databases: Databases,
  options: { readonly olderThanMs: number; readonly limit: number },
): Promise<StuckReport> {
  const overdue =
    "status NOT IN ('COMPLETED', 'FAILED') AND created_at < CURRENT_TIMESTAMP(3) - INTERVAL ? MICROSECOND";
  const [count] = await databases.order.query<{ total: number }>(
    `SELECT COUNT(*) AS total FROM orders WHERE ${overdue}`,
    [options.olderThanMs * 1_000],
  );
  const rows = await databases.order.query<{ id: string }>(
    `SELECT order_id AS id FROM orders WHERE ${overdue} ORDER BY created_at, order_id LIMIT ?`,
    [options.olderThanMs * 1_000, options.limit],
  );
  const orderIds = rows.map(({ id }) => id);
  if (orderIds.length === 0) return { orders: [], total: 0 };
  const parking = await findParking(databases);
  const books = await readDatabases(databases, parking, { orderIds });
  const orders = orderIds.flatMap((orderId) => {
    const found = books.get(orderId);
    return found?.orderRow === undefined ? [] : [describe(found, found.orderRow)];
  });
  // An order may have become final between the two reads.
  return {
    orders: orders.filter(({ status }) => status !== "COMPLETED" && status !== "FAILED"),
    total: count?.total ?? 0,
  };
}

function describe(books: DatabaseBooks, order: OrderRow): StuckOrder {
  const events = serviceNames.flatMap((service) => books[service].events);
  const outcomes = byService(
    (service) => new Map(books[service].inbox.map(({ eventId, outcome }) => [eventId, outcome])),
  );
  const owed = owedTo(stateOf(books.orderId, order), events, outcomes);
  const now = books.readAt.order.getTime();
  return {
    orderId: books.orderId,
    status: order.status,
    ageMs: now - order.createdAt.getTime(),
    unchangedMs: now - order.updatedAt.getTime(),
    owed: owed.map((debt) => ({ ...debt, knows: knowledgeOf(books, debt) })),
  };
}

function stateOf(
  orderId: string,
  { status, version, failureReason, awaitsStock, awaitsPayment }: OrderRow,
): OrderState {
  const common = { orderId, version };
  if (status !== "COMPENSATING" && status !== "FAILED") return { ...common, status };
  if (failureReason === null) throw new Error(`Order ${orderId} is ${status} without a failure reason.`);
  if (status === "FAILED") return { ...common, status, failureReason };
  return { ...common, status, failureReason, awaiting: { stock: awaitsStock, payment: awaitsPayment } };
}

function knowledgeOf(books: DatabaseBooks, { by, event }: Owed): Knowledge {
  if (by === "relay")
    return { inbox: null, undelivered: undeliveredUpTo(books, event.eventId), parked: null, row: null };
  const { events, inbox, parked } = books[by];
  const received = inbox.find(({ eventId }) => eventId === event.eventId);
  return {
    inbox: received === undefined ? null : { outcome: received.outcome, handledAt: received.handledAt },
    undelivered: undeliveredOf(events),
    parked: parked ?? null,
    row: rowOf(books, by) ?? null,
  };
}

function rowOf(books: DatabaseBooks, service: ServiceName): ReservationRow | PaymentRow | undefined {
  if (service === "inventory") return books.reservation;
  return service === "payment" ? books.paymentRow : undefined;
}

/** The event and those before it in its outbox: any of them may hold the key. */
function undeliveredUpTo(books: DatabaseBooks, eventId: string): readonly Undelivered[] {
  const isIt = (event: EventRow) => event.eventId === eventId;
  const publisher = serviceNames.find((service) => books[service].events.some(isIt));
  const events = publisher === undefined ? [] : books[publisher].events;
  return undeliveredOf(events.slice(0, events.findIndex(isIt) + 1));
}

function undeliveredOf(events: readonly EventRow[]): readonly Undelivered[] {
  return events
    .filter(({ status }) => status !== "PUBLISHED" && status !== "DISCARDED")
    .map(({ eventId, type, status, retryCount, lastError, nextAttemptAt }) => ({
      eventId,
      type,
      status,
      retryCount,
      lastError,
      nextAttemptAt,
    }));
}
