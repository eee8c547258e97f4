/** I1: an order that was acknowledged exists, and one `request_id` of one owner creates one order. */
import { OrderPlacedSchema } from "../../../../proto/gen/shop/order/v1/events_pb.ts";
import { serviceNames } from "../../../stack/services.ts";
import type { Databases } from "../books.ts";
import { type Finding, type OrderCheck, sourceOf, withoutPayload, withoutPaymentMethod } from "./order-check.ts";

const pageSize = 1_000;

/** An order has exactly one OrderPlaced, and no other source knows an order that Order does not have. */
export function checkOrderExists(check: OrderCheck): void {
  const { orderRow } = check.books;
  if (orderRow === undefined) {
    const traces = tracesOf(check);
    if (Object.keys(traces).length > 0) {
      check.report("I1", "the order is not in Order's database, but other sources have traces of it", traces);
    }
    return;
  }
  const placed = check.eventsOf("order", OrderPlacedSchema);
  if (placed.length === 1 || (placed.length === 0 && check.isPruned("order"))) return;
  check.report("I1", `the order has ${placed.length} OrderPlaced events, not 1`, {
    order: withoutPaymentMethod(orderRow),
    outbox: placed.map(withoutPayload),
  });
}

function tracesOf({ books }: OrderCheck): Finding["rows"] {
  const { reservation, paymentRow, topic, ledger } = books;
  const isFromService = ({ source }: { readonly source: string }) =>
    serviceNames.some((service) => source === sourceOf(service));
  return {
    ...(reservation === undefined ? {} : { reservation }),
    ...(paymentRow === undefined ? {} : { payment: paymentRow }),
    ...(topic.some(isFromService) ? { topic } : {}),
    ...(ledger.authorizations.length === 0 ? {} : { ledger }),
    ...Object.fromEntries(
      serviceNames.flatMap((service) =>
        books[service].events.length === 0 ? [] : [[`${service} outbox`, books[service].events.map(withoutPayload)]],
      ),
    ),
  };
}

/** Looks for acknowledged orders. Reads once, because an order is committed before it is acknowledged. */
export async function findMissingOrders(
  databases: Databases,
  acknowledged: readonly string[],
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (let first = 0; first < acknowledged.length; first += pageSize) {
    const page = acknowledged.slice(first, first + pageSize);
    const rows = await databases.order.query<{ id: string }>(
      "SELECT order_id AS id FROM orders WHERE order_id IN (?)",
      [page],
    );
    const found = new Set(rows.map(({ id }) => id));
    for (const orderId of page.filter((id) => !found.has(id))) {
      findings.push({
        promise: "I1",
        subject: orderId,
        what: "the order was acknowledged but does not exist",
        rows: {},
      });
    }
  }
  return findings;
}

/** Looks for requests that created more than one order. */
export async function findDoubledRequests(databases: Databases): Promise<readonly Finding[]> {
  const rows = await databases.order.query<{ owner: string; request_id: string; orders: string }>(
    `SELECT owner, request_id, GROUP_CONCAT(order_id ORDER BY order_id) AS orders FROM orders
      GROUP BY owner, request_id HAVING COUNT(*) > 1 LIMIT ?`,
    [pageSize],
  );
  return rows.map((row) => ({
    promise: "I1",
    subject: row.request_id,
    what: "one request created several orders",
    rows: { owner: row.owner, orders: row.orders.split(",") },
  }));
}
