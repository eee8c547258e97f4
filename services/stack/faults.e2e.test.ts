/**
 * Kills and freezes processes of a running stack while orders flow. Afterwards every acknowledged order has the right
 * final status, and stock and money add up. Each test checks that something was in flight when it struck.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { sleep } from "../kit/backoff.ts";
import { eventually } from "../kit/testing.ts";
import { serviceNames } from "./services.ts";
import { kafkaOf, orderRequest, outcomeOf, startStack, type TestStack, watchToEnd } from "./testing.ts";
import { findDiscrepancies } from "./testing-books.ts";

let stack: TestStack;
beforeAll(async () => {
  stack = await startStack();
}, 120_000);
afterAll(() => stack.stop(), 60_000);

const kinds = [
  { change: {}, outcome: "COMPLETED" },
  { change: { paymentMethod: "pm_declined" }, outcome: "FAILED/PAYMENT_DECLINED" },
  { change: { sku: "sku-none" }, outcome: "FAILED/OUT_OF_STOCK" },
] as const;

interface Acknowledged {
  readonly orderId: string;
  readonly outcome: string;
  readonly atMs: number;
}

/** Places an order. Retries with the same request id until it is acknowledged, as a client should. */
async function place(index: number): Promise<Acknowledged> {
  const kind = kinds[index % kinds.length] ?? kinds[0];
  const request = orderRequest(kind.change);
  for (;;) {
    try {
      const { orderId } = await stack.connect.placeOrder(request);
      return { orderId, outcome: kind.outcome, atMs: performance.now() };
    } catch (error) {
      if (![Code.Unavailable, Code.Unknown].includes(ConnectError.from(error).code)) throw error;
      await sleep(100);
    }
  }
}

/** Places about 30 orders a second until `stop` is called, which returns all of them once acknowledged. */
function flow() {
  const stopping = new AbortController();
  const placing: Promise<Acknowledged>[] = [];
  const done = (async () => {
    for (let index = 0; !stopping.signal.aborted; index++) {
      placing.push(place(index));
      await sleep(33, stopping.signal);
    }
    return await Promise.all(placing);
  })();
  return {
    stop() {
      stopping.abort();
      return done;
    },
  };
}

async function statusesOf(orders: readonly Acknowledged[]): Promise<Map<string, string>> {
  const rows = await stack.databases.order.query<{ order_id: string; outcome: string }>(
    "SELECT order_id, CONCAT_WS('/', status, failure_reason) AS outcome FROM orders WHERE order_id IN (?)",
    [orders.map((order) => order.orderId)],
  );
  return new Map(rows.map((row) => [row.order_id, row.outcome]));
}

async function expectAllFinal(orders: readonly Acknowledged[], withinMs = 30_000) {
  await eventually(async () => {
    const statuses = await statusesOf(orders);
    expect(orders.filter((order) => statuses.get(order.orderId) !== order.outcome)).toEqual([]);
  }, withinMs);
}

const retriedRows = async () => {
  const counts = await Promise.all(
    Object.entries(stack.databases).map(([service, database]) =>
      database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${service}_outbox_event WHERE retry_count > 0`),
    ),
  );
  return counts.map((rows) => rows[0]?.n);
};

test("while the broker hangs, orders are accepted, watches stay open and no attempt is counted; then all orders complete", async () => {
  const kafka = await stack.pidOf("kafka");
  process.kill(kafka, "SIGSTOP");
  const orders: Acknowledged[] = [];
  let watching: Promise<string[]> | undefined;
  try {
    for (let index = 0; index < 30; index++) {
      const order = await place(index);
      orders.push(order);
      watching ??= watchToEnd(stack.connect, order.orderId).then((seen) => seen.map(outcomeOf));
    }
    // Longer than the time limit of a send, so the relay has failed at least once.
    await eventually(async () => {
      const response = await fetch(`${(await stack.read()).health.relay}/readyz`);
      expect(response.status).toBe(503);
    }, 15_000);
    const pending = await stack.databases.order.query<{ n: number }>(
      "SELECT COUNT(*) AS n FROM order_outbox_event WHERE status = 'PENDING'",
    );
    expect(pending[0]?.n).toBeGreaterThanOrEqual(30);
    expect(new Set((await statusesOf(orders)).values())).toEqual(new Set(["PENDING"]));
    expect(await retriedRows()).toEqual([0, 0, 0]);
  } finally {
    process.kill(kafka, "SIGCONT");
  }
  await expectAllFinal(orders);
  expect((await watching)?.at(-1)).toBe("COMPLETED");
  expect(await retriedRows()).toEqual([0, 0, 0]);
  expect(await stack.pidOf("kafka")).toBe(kafka);
}, 90_000);

test("while the database hangs, calls fail with UNAVAILABLE within 2 s and no process ends; then all go on", async () => {
  const before = (await stack.read()).processes;
  const mariadb = await stack.pidOf("mariadb");
  const inFlight = await Promise.all(Array.from({ length: 10 }, (_, index) => place(index)));
  process.kill(mariadb, "SIGSTOP");
  const request = orderRequest();
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      const startedMs = performance.now();
      const error = await stack.connect.placeOrder(request).then(
        () => undefined,
        (thrown) => ConnectError.from(thrown),
      );
      expect(error?.code).toBe(Code.Unavailable);
      expect(performance.now() - startedMs).toBeLessThan(2_300);
    }
  } finally {
    process.kill(mariadb, "SIGCONT");
  }
  // The three attempts created at most one order, and the fourth returns it.
  let placed: { orderId: string } | undefined;
  await eventually(async () => {
    placed = await stack.connect.placeOrder(request);
  }, 15_000);
  const rows = await stack.databases.order.query("SELECT order_id FROM orders WHERE request_id = ?", [
    request.requestId,
  ]);
  expect(rows).toEqual([{ order_id: placed?.orderId ?? "" }]);
  await expectAllFinal(inFlight);
  expect((await stack.read()).processes).toEqual(before);
}, 90_000);

for (const name of [...serviceNames, "relay", "gateway", "mariadb", "kafka"]) {
  test(`after a kill -9 of ${name} while orders flow, it is restarted, and nothing is lost or done twice`, async () => {
    const orders = flow();
    await sleep(500);
    const pid = await stack.pidOf(name);
    process.kill(pid, "SIGKILL");
    const killedMs = performance.now();
    // An order placed after the kill needs the killed process, and is final within 15 s.
    const probe = await place(0);
    await eventually(async () => {
      expect((await statusesOf([probe])).get(probe.orderId)).toBe(probe.outcome);
    }, 60_000);
    const resumedMs = performance.now() - killedMs;
    const acknowledged = await orders.stop();
    expect(await stack.pidOf(name)).not.toBe(pid);
    expect(stack.output()).toMatch(new RegExp(`${name} was killed by SIGKILL; restarting it`));
    expect(acknowledged.some((order) => order.atMs < killedMs)).toBe(true);
    await expectAllFinal(acknowledged);
    console.log(
      `${name}: consumption resumed ${Math.round(resumedMs)} ms after the kill; ${acknowledged.length} orders`,
    );
    expect(resumedMs).toBeLessThan(15_000);
  }, 120_000);
}

test("redelivering all records of the topic changes nothing", async () => {
  const admin = await openAdmin(kafkaOf(await stack.read()));
  const topic = "shop.order-saga";
  const groups = serviceNames;
  const caughtUp = async () => {
    const ends = (await admin.endOffsets(topic)).map(({ partition, offset }) => [partition, offset]).sort();
    for (const group of groups) {
      const committed = (await admin.committedOffsets(group, topic))
        .filter(({ offset }) => offset !== "-1")
        .map(({ partition, offset }) => [partition, offset])
        .sort();
      expect(committed).toEqual(ends.filter(([, offset]) => offset !== "0"));
    }
  };
  const everything = async () => ({
    stock: await stack.databases.inventory.query("SELECT * FROM stock ORDER BY sku"),
    reservations: await stack.databases.inventory.query("SELECT * FROM reservation ORDER BY order_id"),
    payments: await stack.databases.payment.query("SELECT * FROM payment ORDER BY order_id"),
    orders: await stack.databases.order.query("SELECT * FROM orders ORDER BY order_id"),
    outboxes: await Promise.all(
      Object.entries(stack.databases).map(([service, database]) =>
        database.query(`SELECT COUNT(*) AS events FROM ${service}_outbox_event`),
      ),
    ),
  });
  const duplicates = async () => {
    let sum = 0;
    for (const group of groups) {
      const text = await (await fetch(`${(await stack.read()).health[group]}/metrics`)).text();
      sum += Number(/^inbox_events_total\{.*outcome="duplicate".*\} (\d+)/m.exec(text)?.[1] ?? 0);
    }
    return sum;
  };
  await eventually(caughtUp, 30_000);
  const before = await everything();
  const duplicatesBefore = await duplicates();

  // Offsets can be reset once the frozen members' sessions have expired and they are out of their groups.
  const pids = await Promise.all(groups.map((name) => stack.pidOf(name)));
  for (const pid of pids) process.kill(pid, "SIGSTOP");
  try {
    for (const group of groups) await eventually(() => admin.resetOffsets(group, topic), 20_000);
  } finally {
    for (const pid of pids) process.kill(pid, "SIGCONT");
  }
  const inboxes = await Promise.all(
    Object.entries(stack.databases).map(([service, database]) =>
      database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${service}_inbox_event`),
    ),
  );
  const recorded = inboxes.reduce((sum, rows) => sum + Number(rows[0]?.n), 0);
  await eventually(async () => {
    expect((await duplicates()) - duplicatesBefore).toBeGreaterThanOrEqual(recorded);
  }, 40_000);
  await eventually(caughtUp, 30_000);
  expect(await everything()).toEqual(before);
  await admin.close();
}, 120_000);

test("stock, money and events add up after all of these faults", async () => {
  await eventually(async () => {
    expect(await findDiscrepancies(stack)).toEqual([]);
  }, 30_000);
}, 60_000);
