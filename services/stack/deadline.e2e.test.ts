/**
 * Deadlines on the real processes. An outage of Order itself fails no order whose answer is on the topic. An outage of
 * the payment gateway ends in compensation, and what was charged is given back.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { eventually } from "../kit/testing.ts";
import { orderRequest, startStack, type TestStack } from "./testing.ts";
import { findDiscrepancies, readLedger } from "./testing-books.ts";

/** Long enough to get orders in flight, short enough to wait for. */
const deadlineMs = 8_000;

let stack: TestStack;
beforeAll(async () => {
  stack = await startStack([], { ORDER_DEADLINE_MS: String(deadlineMs) });
}, 120_000);
afterAll(() => stack.stop(), 60_000);

async function place(count: number, paymentMethod: string): Promise<readonly string[]> {
  const placed = Array.from({ length: count }, () => stack.connect.placeOrder(orderRequest({ paymentMethod })));
  return (await Promise.all(placed)).map(({ orderId }) => orderId);
}

async function idsOf(service: "order" | "payment", sql: string, orderIds: readonly string[]): Promise<string[]> {
  const rows = await stack.databases[service].query<{ id: string }>(sql, [orderIds]);
  return rows.map(({ id }) => id).sort();
}

const paymentsIn = (status: string, orderIds: readonly string[]) =>
  idsOf("payment", `SELECT order_id AS id FROM payment WHERE order_id IN (?) AND status = '${status}'`, orderIds);
const undecidedPastDeadline = (orderIds: readonly string[]) =>
  idsOf(
    "order",
    `SELECT order_id AS id FROM orders WHERE order_id IN (?) AND status IN ('PENDING', 'STOCK_RESERVED')
       AND deadline_at < CURRENT_TIMESTAMP(3)`,
    orderIds,
  );

async function outcomesOf(orderIds: readonly string[]): Promise<readonly string[]> {
  const rows = await stack.databases.order.query<{ outcome: string }>(
    "SELECT DISTINCT CONCAT_WS('/', status, failure_reason) AS outcome FROM orders WHERE order_id IN (?)",
    [orderIds],
  );
  return rows.map(({ outcome }) => outcome);
}

/** Each starts an outage of Order and returns a function that ends it. */
const outages: Readonly<Record<string, () => Promise<() => void>>> = {
  async "was frozen"() {
    const pid = await stack.pidOf("order");
    process.kill(pid, "SIGSTOP");
    return () => process.kill(pid, "SIGCONT");
  },
  async "was killed and its successor frozen"() {
    const killed = await stack.pidOf("order");
    process.kill(killed, "SIGKILL");
    const successor = await eventually(async () => {
      const pid = await stack.pidOf("order");
      expect(pid).not.toBe(killed);
      return pid;
    });
    process.kill(successor, "SIGSTOP");
    return () => process.kill(successor, "SIGCONT");
  },
};

for (const [outage, startOutage] of Object.entries(outages)) {
  test(`orders complete if Order ${outage} past their deadline while their authorisations were on the topic`, async () => {
    const orderIds = await place(20, "pm_slow");
    await eventually(async () => expect(await paymentsIn("AUTHORIZING", orderIds)).toHaveLength(20));
    const endOutage = await startOutage();
    try {
      await eventually(async () => {
        const published = await idsOf(
          "payment",
          `SELECT aggregate_id AS id FROM payment_outbox_event WHERE aggregate_id IN (?)
             AND type = 'shop.payment.v1.PaymentAuthorized' AND status = 'PUBLISHED'`,
          orderIds,
        );
        expect(published).toHaveLength(20);
      });
      await eventually(async () => {
        expect(await undecidedPastDeadline(orderIds)).toEqual([...orderIds].sort());
      }, 2 * deadlineMs);
      // Order has handled nothing of what is on the topic.
      const handled = await idsOf(
        "order",
        `SELECT aggregate_id AS id FROM order_inbox_event WHERE aggregate_id IN (?)
           AND type = 'shop.payment.v1.PaymentAuthorized'`,
        orderIds,
      );
      expect(handled).toEqual([]);
    } finally {
      endOutage();
    }
    await eventually(async () => expect(await outcomesOf(orderIds)).toEqual(["COMPLETED"]), 30_000);
  }, 90_000);
}

test("if the gateway hangs past the deadline, orders wait, then are compensated, and what was charged is given back", async () => {
  const charged = await place(5, "pm_timeout_charged");
  const live = async (status: string) => {
    const entries = await readLedger(await stack.read());
    return entries
      .filter((entry) => entry.kind === "AUTHORIZATION" && entry.status === status)
      .map(({ orderId }) => orderId);
  };
  await eventually(async () => expect(await live("AUTHORIZED")).toEqual(expect.arrayContaining([...charged])));
  const gateway = await stack.pidOf("gateway");
  process.kill(gateway, "SIGSTOP");
  let orderIds = charged;
  try {
    // The gateway has charged these, and Payment does not know.
    expect(await paymentsIn("AUTHORIZING", charged)).toEqual([...charged].sort());
    orderIds = [...charged, ...(await place(10, "pm_ok"))];
    // Payment and Order handle StockReserved independently.
    await eventually(async () => {
      expect(await paymentsIn("AUTHORIZING", orderIds)).toHaveLength(15);
      expect(await outcomesOf(orderIds)).toEqual(["STOCK_RESERVED"]);
    });
    await eventually(async () => {
      expect(await outcomesOf(orderIds)).toEqual(["COMPENSATING/TIMED_OUT"]);
      expect(await paymentsIn("VOIDING", orderIds)).toHaveLength(15);
    }, 3 * deadlineMs);
  } finally {
    process.kill(gateway, "SIGCONT");
  }
  await eventually(async () => expect(await outcomesOf(orderIds)).toEqual(["FAILED/TIMED_OUT"]), 30_000);
  expect((await live("VOIDED")).filter((orderId) => charged.includes(orderId)).sort()).toEqual([...charged].sort());
  expect((await live("AUTHORIZED")).filter((orderId) => orderIds.includes(orderId))).toEqual([]);
}, 90_000);

test("stock, money and events add up after the outages", async () => {
  await eventually(async () => expect(await findDiscrepancies(stack)).toEqual([]), 30_000);
}, 60_000);
