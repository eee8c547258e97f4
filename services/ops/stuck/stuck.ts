/** Where does it hang: the orders that are not final past a limit, what each waits for, and who owes it. */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { OrderState, OrderStatus } from "../../order/domain.ts";
import {
  type DatabaseBooks,
  type Databases,
  type EventRow,
  findParking,
  type InboxRow,
  type OrderRow,
  type PaymentRow,
  type ReservationRow,
  readDatabases,
  services,
} from "../audit/books.ts";
import { type Owed, owedTo } from "./owed.ts";

/** What whoever owes something knows of the order. */
export interface Knowledge {
  /** Whether the event was received: null where it was not. */
  readonly inbox: Pick<InboxRow, "outcome" | "handledAt"> | null;
  /** Its undelivered events of this order; of the relay, the event that it owes and those before it. */
  readonly undelivered: readonly Undelivered[];
  /** Why the order's key is parked there. */
  readonly parked: string | null;
  /** Inventory's and payment's row of the order; null where there is none, and for the others. */
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
  /** Since it was placed, by Order's database. */
  readonly ageMs: number;
  /** Since its status changed last. */
  readonly unchangedMs: number;
  /** Empty: no event under way will ever move it. */
  readonly owed: readonly Debt[];
}

export interface StuckReport {
  /** The oldest of them. */
  readonly orders: readonly StuckOrder[];
  readonly total: number;
}

/** @param options.limit how many orders are looked at closely. */
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
  // Between the two reads some may have come to their end.
  return {
    orders: orders.filter(({ status }) => status !== "COMPLETED" && status !== "FAILED"),
    total: count?.total ?? 0,
  };
}

function describe(books: DatabaseBooks, order: OrderRow): StuckOrder {
  const events = services.flatMap((service) => books[service].events);
  const outcomes = (service: ServiceName) =>
    new Map(books[service].inbox.map(({ eventId, outcome }) => [eventId, outcome]));
  const owed = owedTo(stateOf(books.orderId, order), events, {
    order: outcomes("order"),
    inventory: outcomes("inventory"),
    payment: outcomes("payment"),
  });
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
  const isUndelivered = ({ status }: EventRow) => status !== "PUBLISHED" && status !== "DISCARDED";
  const undelivered = (rows: readonly EventRow[]) => rows.filter(isUndelivered).map(toUndelivered);
  if (by === "relay") {
    const source = services.find((service) => books[service].events.some(({ eventId }) => eventId === event.eventId));
    const rows = source === undefined ? [] : books[source].events;
    const position = rows.findIndex(({ eventId }) => eventId === event.eventId);
    return { inbox: null, undelivered: undelivered(rows.slice(0, position + 1)), parked: null, row: null };
  }
  const { events, inbox, parked } = books[by];
  const received = inbox.find(({ eventId }) => eventId === event.eventId);
  const row = by === "inventory" ? books.reservation : by === "payment" ? books.paymentRow : undefined;
  return {
    inbox: received === undefined ? null : { outcome: received.outcome, handledAt: received.handledAt },
    undelivered: undelivered(events),
    parked: parked ?? null,
    row: row ?? null,
  };
}

function toUndelivered({ eventId, type, status, retryCount, lastError, nextAttemptAt }: EventRow): Undelivered {
  return { eventId, type, status, retryCount, lastError, nextAttemptAt };
}
