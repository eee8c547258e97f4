/**
 * The auditor and `stuck` on a running stack. The auditor finds nothing on a healthy system, even under load, and finds
 * every kind of damage done by hand. `stuck` names the service that holds up an order.
 */
import { Database as Ledger } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { EventRecord } from "../../../proto/envelope.ts";
import type { ServiceName } from "../../../proto/event-table.ts";
import { sagaTopic } from "../../../proto/event-table.ts";
import { openAdmin } from "../../../relay/kafka/admin.ts";
import { consumeTopic } from "../../../relay/kafka/consumer.ts";
import { openProducer } from "../../../relay/kafka/producer.ts";
import { sleep } from "../../kit/backoff.ts";
import { environment } from "../../kit/config.ts";
import { insertRows } from "../../kit/database.ts";
import type { SqlValue } from "../../kit/statements.ts";
import { eventually } from "../../kit/testing.ts";
import { kafkaOf, orderRequest, startStack, type TestStack } from "../../stack/testing.ts";
import { parseOpsArguments } from "../arguments.ts";
import { readOpsSettings } from "../settings.ts";
import { findStuck, type StuckOrder } from "../stuck/stuck.ts";
import { auditVerb } from "../verbs/audit.ts";
import { stuckVerb } from "../verbs/stuck.ts";
import { audit, openAuditor } from "./audit.ts";
import type { PromiseId } from "./promises/promises.ts";
import type { AuditSources } from "./reader.ts";
import type { AuditReport } from "./report.ts";

const ordersCount = 200;
/** Shorter than in production: most of these tests read an idle stack. */
const rereadIntervalMs = 300;

let stack: TestStack;
let sources: AuditSources;
let acknowledged: readonly string[];
let completed: string;
let declined: string;
let outOfStock: string;

const kinds = [
  { sku: "sku-0001", paymentMethod: "pm_ok" },
  { sku: "sku-0002", paymentMethod: "pm_declined" },
  { sku: "sku-none", paymentMethod: "pm_ok" },
  { sku: "sku-0003", paymentMethod: "pm_ok" },
] as const;

async function placeOrders(count: number): Promise<string[]> {
  const placed = Array.from({ length: count }, (_, index) =>
    stack.connect.placeOrder(orderRequest(kinds[index % kinds.length])),
  );
  return (await Promise.all(placed)).map(({ orderId }) => orderId);
}

/** Cancels orders while the gateway call is in flight, so that some are charged first and voided then. */
async function placeAndCancel(count: number): Promise<string[]> {
  return await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const { orderId } = await stack.connect.placeOrder(orderRequest({ paymentMethod: "pm_slow" }));
      await sleep(100 * index);
      await stack.connect.cancelOrder({ orderId, reason: "changed my mind" });
      return orderId;
    }),
  );
}

async function untilFinal(orderIds: readonly string[], timeoutMs = 45_000): Promise<void> {
  await eventually(async () => {
    const rows = await stack.databases.order.query(
      "SELECT order_id, status FROM orders WHERE order_id IN (?) AND status NOT IN ('COMPLETED', 'FAILED')",
      [orderIds],
    );
    expect(rows).toEqual([]);
  }, timeoutMs);
}

async function pidOf(name: string): Promise<number> {
  const pid = (await stack.read()).processes[name];
  if (pid === undefined) throw new Error(`${name} is not running`);
  return pid;
}

/** Pauses a process during `work`. Shorter than a consumer's session, so its group does not rebalance. */
async function whilePaused<T>(name: string, work: () => Promise<T>): Promise<T> {
  const pid = await pidOf(name);
  process.kill(pid, "SIGSTOP");
  try {
    return await work();
  } finally {
    process.kill(pid, "SIGCONT");
  }
}

/** The context of a verb that an operator runs on the stack. Close `settings` afterwards. */
async function operator() {
  const settings = await readOpsSettings(environment(), join(import.meta.dir, "../../.."), "test");
  const context = {
    ...settings,
    confirm: async () => undefined,
    showProgress: () => undefined,
    signal: new AbortController().signal,
  };
  return { context, settings };
}

function brokenOf(report: AuditReport) {
  return report.promises.filter(({ broken }) => broken > 0);
}

beforeAll(async () => {
  stack = await startStack();
  const stackFile = await stack.read();
  sources = {
    databases: stack.databases,
    kafka: kafkaOf(stackFile),
    topic: sagaTopic,
    gatewayUrl: stackFile.gateway,
  };
}, 120_000);
afterAll(() => stack.stop(), 60_000);

describe("a healthy system", () => {
  test("the auditor finds nothing while orders of every kind flow, nor once they are final", async () => {
    let audits = 0;
    let isOver = false;
    const flow = (async () => {
      const placed: string[] = [];
      // Until several audits have run.
      for (let round = 0; round < 10 || (audits < 3 && !isOver); round++) {
        placed.push(...(await placeOrders(ordersCount / 10 - 2)));
        if (round % 5 === 0) placed.push(...(await placeAndCancel(10)));
        await sleep(200);
      }
      const { orderId } = await stack.connect.placeOrder(orderRequest({ paymentMethod: "pm_timeout_charged" }));
      return [...placed, orderId];
    })();
    const auditor = await openAuditor({ ...sources, rereadIntervalMs });
    let suspects = 0;
    const flowing = { done: false };
    const finished = flow.finally(() => {
      flowing.done = true;
    });
    try {
      while (!flowing.done) {
        const report = await auditor.run();
        expect(brokenOf(report)).toEqual([]);
        expect(report.unsettled).toEqual([]);
        suspects += report.suspects;
        audits++;
      }
    } finally {
      isOver = true;
    }
    acknowledged = await finished;
    await untilFinal(acknowledged);
    const report = await auditor.run();
    await auditor.close();
    console.log(`${audits} audits during ${acknowledged.length} orders; ${suspects} orders were read again`);
    expect(audits).toBeGreaterThan(2);
    expect(brokenOf(report)).toEqual([]);
    expect(report).toMatchObject({ ok: true, unsettledCount: 0 });
    for (const { checked } of report.promises) expect(checked).toBeGreaterThanOrEqual(acknowledged.length / 2);

    // The newest ones: the events of the oldest could have been pruned.
    const rows = await stack.databases.order.query<{ reason: string; order_id: string }>(
      `SELECT COALESCE(failure_reason, 'NONE') AS reason, MAX(order_id) AS order_id FROM orders
        WHERE order_id IN (?) GROUP BY 1`,
      [acknowledged],
    );
    const byReason = new Map(rows.map((row) => [row.reason, row.order_id]));
    expect([...byReason.keys()].sort()).toEqual(["CANCELLED", "NONE", "OUT_OF_STOCK", "PAYMENT_DECLINED"]);
    completed = byReason.get("NONE") ?? "";
    declined = byReason.get("PAYMENT_DECLINED") ?? "";
    outOfStock = byReason.get("OUT_OF_STOCK") ?? "";
  });

  test("of 1,000 concurrent orders for the last piece, one completes and the auditor finds nothing", async () => {
    const buyers = Array.from({ length: 1_000 }, () => stack.connect.placeOrder(orderRequest({ sku: "sku-rare" })));
    const orderIds = (await Promise.all(buyers)).map(({ orderId }) => orderId);
    await untilFinal(orderIds);
    const outcomes = await stack.databases.order.query(
      `SELECT CONCAT_WS('/', status, failure_reason) AS outcome, COUNT(*) AS orders FROM orders
        WHERE order_id IN (?) GROUP BY 1 ORDER BY 1`,
      [orderIds],
    );
    expect(outcomes).toEqual([
      { outcome: "COMPLETED", orders: 1 },
      { outcome: "FAILED/OUT_OF_STOCK", orders: 999 },
    ]);
    await eventually(async () => {
      const stock = await stack.databases.inventory.query(
        "SELECT available, held, sold FROM stock WHERE sku = 'sku-rare'",
      );
      expect(stock).toEqual([{ available: 0, held: 0, sold: 1 }]);
    });
    const report = await audit({ ...sources, rereadIntervalMs });
    expect(brokenOf(report)).toEqual([]);
    expect(report).toMatchObject({ ok: true, unsettledCount: 0, hinderedCount: 0 });
  });

  test("the verbs audit and stuck say that nothing is wrong", async () => {
    const { context, settings } = await operator();
    const outcome = await auditVerb.run(context, parseOpsArguments(["audit"], [auditVerb]));
    expect(outcome.text).toContain("Every promise is kept.");
    expect(outcome.complete).toBe(true);
    const stuck = await stuckVerb.run(context, parseOpsArguments(["stuck", "--older-than", "0"], [stuckVerb]));
    expect(stuck.text).toBe("Every order that is older than 0 s is final.");
    await settings.close();
  });
});

type Undo = () => Promise<unknown>;

/** Damages rows. Returns the repair. */
async function change(
  service: ServiceName,
  statement: string,
  undo: string,
  values: readonly SqlValue[],
): Promise<Undo> {
  expect(await stack.databases[service].execute(statement, values)).toBeGreaterThan(0);
  return () => stack.databases[service].execute(undo, values);
}

/** Deletes rows. Returns the repair, which inserts them again. */
async function remove(service: ServiceName, table: string, where: string, values: readonly SqlValue[]): Promise<Undo> {
  const database = stack.databases[service];
  const rows = await database.query<Record<string, SqlValue>>(`SELECT * FROM ${table} WHERE ${where}`, values);
  expect(rows.length).toBeGreaterThan(0);
  await database.execute(`DELETE FROM ${table} WHERE ${where}`, values);
  const columns = Object.keys(rows[0] ?? {});
  return () =>
    insertRows(
      database,
      table,
      columns,
      rows.map((row) => columns.map((column) => row[column] ?? null)),
    );
}

/** Copies an event in the outbox under a new id, marked as published. */
async function copyEvent(
  service: ServiceName,
  orderId: string,
  type: string,
  copy: { readonly type?: string; readonly causationId?: string; readonly payload?: string } = {},
): Promise<Undo> {
  const eventId = Bun.randomUUIDv7();
  const table = `${service}_outbox_event`;
  const headers = copy.causationId === undefined ? "headers" : "?";
  await stack.databases[service].execute(
    `INSERT INTO ${table} (id, aggregate_id, type, payload, headers, status, published_at)
     SELECT ?, aggregate_id, ?, ${copy.payload === undefined ? "payload" : "?"}, ${headers}, 'PUBLISHED', CURRENT_TIMESTAMP(3)
       FROM ${table} WHERE aggregate_id = ? AND type = ?`,
    [
      eventId,
      copy.type ?? type,
      ...(copy.payload === undefined ? [] : [copy.payload]),
      ...(copy.causationId === undefined ? [] : [JSON.stringify({ causationId: copy.causationId })]),
      orderId,
      type,
    ],
  );
  return () => stack.databases[service].execute(`DELETE FROM ${table} WHERE id = ?`, [eventId]);
}

async function authorize(orderId: string): Promise<Undo> {
  const key = `by-hand-${crypto.randomUUID()}`;
  const response = await fetch(`${sources.gatewayUrl}/v1/authorizations`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": key },
    body: JSON.stringify({ orderId, amountMinor: "999", currency: "EUR", paymentMethod: "pm_ok" }),
  });
  expect(response.status).toBe(200);
  return () => inLedger("DELETE FROM entry WHERE idempotency_key = ?", [key]);
}

async function inLedger(sql: string, values: readonly string[]): Promise<void> {
  const ledger = new Ledger(join(stack.dataFolder, "gateway/ledger.sqlite"));
  ledger.run("PRAGMA busy_timeout = 5000");
  expect(ledger.run(sql, [...values]).changes).toBeGreaterThan(0);
  ledger.close();
}

interface Damage {
  readonly promise: PromiseId;
  readonly name: string;
  /** The subject of the finding. */
  readonly subject: () => string;
  readonly put: () => Promise<Undo>;
}

const newOrderId = Bun.randomUUIDv7();
const doubledRequestId = crypto.randomUUID();
const orderColumns =
  "owner, status, version, lines_json, currency_code, total_minor, payment_method, created_at, updated_at";
const inventoryOutbox = "inventory_outbox_event";

const damages: readonly Damage[] = [
  {
    promise: "I1",
    name: "an order without OrderPlaced",
    subject: () => newOrderId,
    put: async () => {
      await stack.databases.order.execute(
        `INSERT INTO orders (order_id, request_id, ${orderColumns}) SELECT ?, ?, ${orderColumns} FROM orders WHERE order_id = ?`,
        [newOrderId, crypto.randomUUID(), outOfStock],
      );
      return () => stack.databases.order.execute("DELETE FROM orders WHERE order_id = ?", [newOrderId]);
    },
  },
  {
    promise: "I1",
    name: "an acknowledged order that was deleted",
    subject: () => completed,
    put: () => remove("order", "orders", "order_id = ?", [completed]),
  },
  {
    promise: "I1",
    name: "one request that created two orders",
    subject: () => doubledRequestId,
    put: async () => {
      const { order } = stack.databases;
      const row = await order.query<{ request_id: string }>("SELECT request_id FROM orders WHERE order_id = ?", [
        declined,
      ]);
      await order.execute("ALTER TABLE orders DROP INDEX orders_owner_request_id");
      const set = "UPDATE orders SET request_id = ? WHERE order_id = ?";
      const other = await order.query<{ request_id: string }>("SELECT request_id FROM orders WHERE order_id = ?", [
        completed,
      ]);
      await order.execute(set, [doubledRequestId, declined]);
      await order.execute(set, [doubledRequestId, completed]);
      return async () => {
        await order.execute(set, [row[0]?.request_id, declined]);
        await order.execute(set, [other[0]?.request_id, completed]);
        await order.execute("ALTER TABLE orders ADD UNIQUE INDEX orders_owner_request_id (owner, request_id)");
      };
    },
  },
  {
    promise: "I2",
    name: "one piece more is sold than was ordered",
    subject: () => "sku-0001",
    put: () =>
      change(
        "inventory",
        "UPDATE stock SET sold = sold + 1, available = available - 1 WHERE sku = ?",
        "UPDATE stock SET sold = sold - 1, available = available + 1 WHERE sku = ?",
        ["sku-0001"],
      ),
  },
  {
    promise: "I2",
    name: "a piece is held without a reservation",
    subject: () => "sku-0009",
    put: () =>
      change(
        "inventory",
        "UPDATE stock SET held = held + 1, available = available - 1 WHERE sku = ?",
        "UPDATE stock SET held = held - 1, available = available + 1 WHERE sku = ?",
        ["sku-0009"],
      ),
  },
  {
    promise: "I5",
    name: "a sold reservation that was deleted",
    subject: () => completed,
    put: () => remove("inventory", "reservation", "order_id = ?", [completed]),
  },
  {
    promise: "I3",
    name: "a second live authorisation, with another idempotency key",
    subject: () => completed,
    put: () => authorize(completed),
  },
  {
    promise: "I3",
    name: "a live authorisation for a failed order",
    subject: () => outOfStock,
    put: () => authorize(outOfStock),
  },
  {
    promise: "I3",
    name: "an authorised amount that differs from the total",
    subject: () => completed,
    put: async () => {
      const where = `kind = 'AUTHORIZATION' AND order_id = ?`;
      await inLedger(`UPDATE entry SET amount_minor = amount_minor || '0' WHERE ${where}`, [completed]);
      return () =>
        inLedger(`UPDATE entry SET amount_minor = substr(amount_minor, 1, length(amount_minor) - 1) WHERE ${where}`, [
          completed,
        ]);
    },
  },
  {
    promise: "I5",
    name: "a completed order whose row says FAILED",
    subject: () => completed,
    put: () =>
      change(
        "order",
        "UPDATE orders SET status = 'FAILED', failure_reason = 'CANCELLED' WHERE order_id = ?",
        "UPDATE orders SET status = 'COMPLETED', failure_reason = NULL WHERE order_id = ?",
        [completed],
      ),
  },
  {
    promise: "I5",
    name: "stock still held for a failed order",
    subject: () => declined,
    put: () =>
      change(
        "inventory",
        "UPDATE reservation SET status = 'HELD' WHERE order_id = ?",
        "UPDATE reservation SET status = 'RELEASED' WHERE order_id = ?",
        [declined],
      ),
  },
  {
    promise: "I5",
    name: "a completed order without a payment",
    subject: () => completed,
    put: () => remove("payment", "payment", "order_id = ?", [completed]),
  },
  {
    promise: "I5",
    name: "a second final event",
    subject: () => completed,
    put: () => copyEvent("order", completed, "shop.order.v1.OrderCompleted", { type: "shop.order.v1.OrderFailed" }),
  },
  {
    promise: "I6",
    name: "an outbox row that was deleted",
    subject: () => completed,
    put: () =>
      remove("inventory", inventoryOutbox, "aggregate_id = ? AND type = 'shop.inventory.v1.StockReserved'", [
        completed,
      ]),
  },
  {
    promise: "I6",
    name: "a published event that is not on the topic",
    subject: () => declined,
    put: () => copyEvent("payment", declined, "shop.payment.v1.PaymentFailed"),
  },
  {
    promise: "I6",
    name: "two events with swapped positions",
    subject: () => completed,
    put: async () => {
      const { order } = stack.databases;
      const rows = await order.query<{ id: string; seq: number }>(
        "SELECT event.id, event.seq FROM order_outbox_event AS event WHERE aggregate_id = ? ORDER BY event.seq",
        [completed],
      );
      const [first, second] = rows;
      const set = (id: string | undefined, seq: number | undefined) =>
        order.execute("UPDATE order_outbox_event SET seq = ? WHERE id = ?", [seq, id]);
      const exchange = async (one: typeof first, other: typeof first) => {
        await set(one?.id, 0);
        await set(other?.id, one?.seq);
        await set(one?.id, other?.seq);
      };
      await exchange(first, second);
      return async () => {
        await set(first?.id, 0);
        await set(second?.id, second?.seq);
        await set(first?.id, first?.seq);
      };
    },
  },
  {
    promise: "I6",
    name: "an event that later events have overtaken",
    subject: () => completed,
    put: async () => {
      // Before all others and never sent. It is dead, so that the relay does not send it.
      const eventId = Bun.randomUUIDv7();
      const { order } = stack.databases;
      await order.execute(
        "INSERT INTO order_outbox_event (id, aggregate_id, type, payload, status) VALUES (?, ?, 'test.Lost', '{}', 'DEAD')",
        [eventId, completed],
      );
      await order.execute("UPDATE order_outbox_event SET seq = 0 WHERE id = ?", [eventId]);
      return () => order.execute("DELETE FROM order_outbox_event WHERE id = ?", [eventId]);
    },
  },
  {
    promise: "I7",
    name: "an event that a service has skipped",
    subject: () => completed,
    put: () =>
      remove("payment", "payment_inbox_event", "aggregate_id = ? AND type = 'shop.inventory.v1.StockReserved'", [
        completed,
      ]),
  },
  {
    promise: "I7",
    name: "an event that was answered twice",
    subject: () => completed,
    put: () => copyEvent("inventory", completed, "shop.inventory.v1.StockReserved"),
  },
  {
    promise: "I7",
    name: "an answer to an event that was not handled",
    subject: () => completed,
    put: () =>
      copyEvent("inventory", completed, "shop.inventory.v1.StockReserved", { causationId: Bun.randomUUIDv7() }),
  },
  {
    promise: "I7",
    name: "a handled event that no service wrote",
    subject: () => completed,
    put: async () => {
      const columns =
        "aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset, batch_id, outcome";
      const eventId = Bun.randomUUIDv7();
      await stack.databases.inventory.execute(
        `INSERT INTO inventory_inbox_event (event_id, ${columns}) SELECT ?, ${columns} FROM inventory_inbox_event
          WHERE aggregate_id = ? AND type = 'shop.order.v1.OrderPlaced'`,
        [eventId, completed],
      );
      return () => stack.databases.inventory.execute("DELETE FROM inventory_inbox_event WHERE event_id = ?", [eventId]);
    },
  },
  {
    promise: "I7",
    name: "a status change without its event",
    subject: () => declined,
    put: () =>
      change(
        "order",
        "UPDATE orders SET version = version + 1 WHERE order_id = ?",
        "UPDATE orders SET version = version - 1 WHERE order_id = ?",
        [declined],
      ),
  },
  {
    promise: "I9",
    name: "reserved lines that differ from the published lines",
    subject: () => completed,
    put: () =>
      change(
        "inventory",
        `UPDATE reservation SET held_lines = REPLACE(held_lines, '"quantity":1', '"quantity":2') WHERE order_id = ?`,
        `UPDATE reservation SET held_lines = REPLACE(held_lines, '"quantity":2', '"quantity":1') WHERE order_id = ?`,
        [completed],
      ),
  },
  {
    promise: "I9",
    name: "an authorised amount that differs from the published amount",
    subject: () => completed,
    put: () =>
      change(
        "payment",
        "UPDATE payment SET amount_minor = amount_minor + 1 WHERE order_id = ?",
        "UPDATE payment SET amount_minor = amount_minor - 1 WHERE order_id = ?",
        [completed],
      ),
  },
  {
    promise: "I9",
    name: "a total that differs from the published total",
    subject: () => completed,
    put: () =>
      change(
        "order",
        "UPDATE orders SET total_minor = total_minor + 1 WHERE order_id = ?",
        "UPDATE orders SET total_minor = total_minor - 1 WHERE order_id = ?",
        [completed],
      ),
  },
  {
    promise: "I9",
    name: "a failure reason that differs from the published reason",
    subject: () => outOfStock,
    put: () =>
      change(
        "order",
        "UPDATE orders SET failure_reason = 'PAYMENT_DECLINED' WHERE order_id = ?",
        "UPDATE orders SET failure_reason = 'OUT_OF_STOCK' WHERE order_id = ?",
        [outOfStock],
      ),
  },
];

describe("damage", () => {
  for (const { promise, name, subject, put } of damages) {
    test(`the auditor finds damage to ${promise}: ${name}`, async () => {
      const auditor = await openAuditor({ ...sources, acknowledged, rereadIntervalMs });
      try {
        const undo = await put();
        let report: AuditReport;
        try {
          report = await auditor.run();
        } finally {
          await undo();
        }
        expect(report.ok).toBe(false);
        const found = report.promises.find((it) => it.promise === promise)?.findings ?? [];
        expect(found.map((finding) => finding.subject)).toContain(subject());
        expect(brokenOf(await auditor.run())).toEqual([]);
      } finally {
        await auditor.close();
      }
    });
  }

  test("the auditor finds damage to I4: an order that makes no progress, unless it waits for an operator", async () => {
    const overdueAfterMs = 1_000;
    const [orderId, eventId] = await whilePaused("payment", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      await sleep(1_500);
      const report = await audit({ ...sources, rereadIntervalMs, overdueAfterMs });
      expect(brokenOf(report).map((it) => it.promise)).toEqual(["I4"]);
      const found = brokenOf(report)[0]?.findings ?? [];
      expect(found.every(({ subject }) => subject === placed.orderId)).toBe(true);
      expect(found.map(({ what }) => what.replace(/ after \d+ s$/, "")).sort()).toEqual([
        "payment has not handled OrderPlaced",
        "payment has not handled StockReserved",
        "still STOCK_RESERVED",
      ]);

      const deadId = Bun.randomUUIDv7();
      await stack.databases.payment.execute(
        `INSERT INTO payment_outbox_event (id, aggregate_id, type, payload, status, last_error)
         VALUES (?, ?, 'test.Poison', '{', 'DEAD', 'not JSON')`,
        [deadId, placed.orderId],
      );
      const hindered = await audit({ ...sources, rereadIntervalMs, overdueAfterMs });
      expect(brokenOf(hindered)).toEqual([]);
      expect(hindered.hindered).toContainEqual({
        orderId: placed.orderId,
        why: `payment's Poison ${deadId} is DEAD: not JSON`,
      });
      return [placed.orderId, deadId] as const;
    });
    await stack.databases.payment.execute("DELETE FROM payment_outbox_event WHERE id = ?", [eventId]);
    await untilFinal([orderId]);
  });
});

test("an order whose void the gateway refuses waits for an operator", async () => {
  const { payment } = stack.databases;
  await payment.execute(
    "UPDATE payment SET status = 'VOID_REFUSED', refusal = 'answered 403 to void' WHERE order_id = ?",
    [completed],
  );
  const report = await audit({ ...sources, rereadIntervalMs });
  await payment.execute("UPDATE payment SET status = 'AUTHORIZED', refusal = NULL WHERE order_id = ?", [completed]);
  expect(report.hindered).toEqual([{ orderId: completed, why: "the gateway refuses to void: answered 403 to void" }]);
  // The order is COMPLETED, so its payment must be AUTHORIZED.
  expect(brokenOf(report).map(({ promise }) => promise)).toContain("I5");
  expect(brokenOf(await audit({ ...sources, rereadIntervalMs }))).toEqual([]);
});

describe("stuck", () => {
  const lookFor = async (orderId: string): Promise<StuckOrder | undefined> =>
    (await findStuck(stack.databases, { olderThanMs: 0, limit: 100 })).orders.find((it) => it.orderId === orderId);
  const owedTo = async (orderId: string) =>
    (await lookFor(orderId))?.owed.map(({ by, step, event }) => `${by}: ${step} ${event.type.split(".").at(-1)}`);
  const statusIs = (orderId: string, status: string) =>
    eventually(async () => {
      const rows = await stack.databases.order.query("SELECT status FROM orders WHERE order_id = ?", [orderId]);
      expect(rows).toEqual([{ status }]);
    }, 4_000);

  test("stuck names payment if it has not handled an event", async () => {
    const orderId = await whilePaused("payment", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      await statusIs(placed.orderId, "STOCK_RESERVED");
      await eventually(async () => expect(await owedTo(placed.orderId)).toEqual(["payment: HANDLE StockReserved"]));
      const stuck = await lookFor(placed.orderId);
      expect(stuck?.owed[0]?.waitsFor).toEqual(["shop.payment.v1.PaymentAuthorized", "shop.payment.v1.PaymentFailed"]);
      expect(stuck?.owed[0]?.knows.inbox).toBeNull();

      // Inventory has answered the cancel, payment has not.
      await stack.connect.cancelOrder({ orderId: placed.orderId, reason: "" });
      await eventually(
        async () => expect(await owedTo(placed.orderId)).toEqual(["payment: HANDLE OrderCancelRequested"]),
        4_000,
      );
      return placed.orderId;
    });
    await untilFinal([orderId]);
    expect(await lookFor(orderId)).toBeUndefined();
  });

  test("stuck names payment while it waits for the gateway", async () => {
    const orderId = await whilePaused("gateway", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      await statusIs(placed.orderId, "STOCK_RESERVED");
      await eventually(
        async () => expect(await owedTo(placed.orderId)).toEqual(["payment: ANSWER StockReserved"]),
        4_000,
      );
      const knows = (await lookFor(placed.orderId))?.owed[0]?.knows;
      expect(knows?.inbox?.outcome).toBe("HANDLED");
      expect(knows?.row).toMatchObject({ status: "AUTHORIZING", nextAttemptAt: expect.any(Date) });
      return placed.orderId;
    });
    await untilFinal([orderId]);
  });

  test("stuck shows what the gateway said when it refuses to void", async () => {
    const { context, settings } = await operator();
    const orderId = await whilePaused("gateway", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      await statusIs(placed.orderId, "STOCK_RESERVED");
      await stack.connect.cancelOrder({ orderId: placed.orderId, reason: "" });
      const refused = async () =>
        await stack.databases.payment.execute(
          "UPDATE payment SET status = 'VOID_REFUSED', refusal = 'answered 403 to void' WHERE order_id = ? AND status = 'VOIDING'",
          [placed.orderId],
        );
      await eventually(async () => expect(await refused()).toBe(1), 4_000);
      await eventually(
        async () => expect(await owedTo(placed.orderId)).toEqual(["payment: ANSWER OrderCancelRequested"]),
        4_000,
      );
      const { text } = await stuckVerb.run(context, parseOpsArguments(["stuck", "--older-than", "0"], [stuckVerb]));
      expect(text).toMatch(
        /COMPENSATING .* PaymentVoided .* payment .* its row is VOID_REFUSED; the gateway answered 403 to void; \d+ gateway calls? made/,
      );
      return placed.orderId;
    });
    await settings.close();
    // The next attempt is confirmed.
    await untilFinal([orderId]);
    expect(brokenOf(await audit({ ...sources, rereadIntervalMs }))).toEqual([]);
  });

  test("stuck says so if a payment or an order is in a status that this version does not know", async () => {
    const { context, settings } = await operator();
    const stuckNow = async () =>
      (await stuckVerb.run(context, parseOpsArguments(["stuck", "--older-than", "0"], [stuckVerb]))).text;
    const orderId = await whilePaused("gateway", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      await statusIs(placed.orderId, "STOCK_RESERVED");
      const rename = (service: "order" | "payment", table: string, from: string, to: string) =>
        stack.databases[service].execute(`UPDATE ${table} SET status = ? WHERE order_id = ? AND status = ?`, [
          to,
          placed.orderId,
          from,
        ]);
      await eventually(
        async () => expect(await rename("payment", "payment", "AUTHORIZING", "REVIEWED")).toBe(1),
        4_000,
      );
      expect(await stuckNow()).toMatch(
        /STOCK_RESERVED .* ANSWER StockReserved .* its row is REVIEWED, a status that this version does not know/,
      );
      expect(await rename("order", "orders", "STOCK_RESERVED", "ESCALATED")).toBe(1);
      expect(await stuckNow()).toMatch(/it is ESCALATED, a status that this version does not know/);
      await rename("order", "orders", "ESCALATED", "STOCK_RESERVED");
      await rename("payment", "payment", "REVIEWED", "AUTHORIZING");
      return placed.orderId;
    });
    await settings.close();
    await untilFinal([orderId]);
  });

  test("stuck names the relay if it has not published an event", async () => {
    const orderId = await whilePaused("relay", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      expect(await owedTo(placed.orderId)).toEqual(["relay: DELIVER OrderPlaced"]);
      const debt = (await lookFor(placed.orderId))?.owed[0];
      expect(debt?.knows.undelivered).toMatchObject([{ type: "shop.order.v1.OrderPlaced", status: "PENDING" }]);
      return placed.orderId;
    });
    await untilFinal([orderId]);
  });

  test("stuck names inventory if it has not handled an event", async () => {
    const orderId = await whilePaused("inventory", async () => {
      const placed = await stack.connect.placeOrder(orderRequest());
      await eventually(
        async () => expect(await owedTo(placed.orderId)).toEqual(["inventory: HANDLE OrderPlaced"]),
        4_000,
      );
      return placed.orderId;
    });
    await untilFinal([orderId]);
  });

  test("stuck names order itself if it has not handled an answer", async () => {
    const placed = await stack.connect.placeOrder(orderRequest({ paymentMethod: "pm_slow" }));
    await statusIs(placed.orderId, "STOCK_RESERVED");
    await whilePaused("order", () =>
      eventually(async () => expect(await owedTo(placed.orderId)).toEqual(["order: HANDLE PaymentAuthorized"]), 4_000),
    );
    await untilFinal([placed.orderId]);
  });
});

/** Records on a topic cannot be changed, so the damage is done to a copy. */
describe("a damaged topic", () => {
  const source = "/shop/order";
  const headerOf = (record: EventRecord, name: string) => record.headers[name] ?? "";

  async function readAll(): Promise<EventRecord[]> {
    const admin = await openAdmin(sources.kafka);
    const ranges = await admin.endOffsets(sagaTopic);
    await admin.close();
    const total = ranges.reduce((sum, { offset, low }) => sum + Number(offset) - Number(low), 0);
    const records: EventRecord[] = [];
    const done = Promise.withResolvers<void>();
    const consumer = consumeTopic({
      ...sources.kafka,
      groupId: `test-${crypto.randomUUID()}`,
      topic: sagaTopic,
      from: "earliest",
      commitOffsets: false,
      partitionsConcurrently: 1,
      batchSizeMax: 1_000,
      async onBatch(batch) {
        for (const { key, value, headers } of batch) {
          records.push({
            key: String(key),
            value: value ?? new Uint8Array(),
            headers: Object.fromEntries(Object.entries(headers ?? {}).map(([name, text]) => [name, String(text)])),
          });
        }
        if (records.length >= total) done.resolve();
      },
      onCrash: done.reject,
    });
    await done.promise;
    await consumer.close();
    return records;
  }

  async function auditCopy(records: readonly EventRecord[]): Promise<AuditReport> {
    const topic = `test.${crypto.randomUUID()}`;
    const admin = await openAdmin(sources.kafka);
    await admin.createTopics([{ topic, partitions: 2, replication: 1, config: {} }]);
    // A broker may learn a little later that it leads a new partition.
    await eventually(() => admin.endOffsets(topic));
    const producer = await openProducer({ ...sources.kafka, timeoutMs: 5_000 });
    try {
      for (let first = 0; first < records.length; first += 500) {
        await eventually(() => producer.send(topic, records.slice(first, first + 500)));
      }
      return await audit({ ...sources, topic, rereadIntervalMs });
    } finally {
      await producer.close();
      await admin.deleteTopics([topic]);
      await admin.close();
    }
  }

  const findingsOf = (report: AuditReport) =>
    brokenOf(report).flatMap(({ findings }) =>
      findings.map(({ promise, subject, what }) => `${promise} ${subject}: ${what}`),
    );

  test("the auditor accepts duplicates on the topic, and finds an event that is late, missing or forged", async () => {
    // An order's last event may still be on its way when the order is final.
    await eventually(async () => {
      const sql = "SELECT COUNT(*) AS n FROM order_outbox_event WHERE status = 'PENDING'";
      const [pending] = await stack.databases.order.query<{ n: number }>(sql);
      expect(Number(pending?.n)).toBe(0);
    });
    const records = await readAll();
    const own = records.filter((record) => record.key === completed && headerOf(record, "ce_source") === source);
    const [placed, ended] = own;
    if (placed === undefined || ended === undefined) throw new Error("The order has too few events.");
    const others = records.filter((record) => !own.includes(record));

    const twice = await auditCopy([...records, placed, ...own]);
    expect(findingsOf(twice)).toEqual([]);
    expect(twice.duplicateRecords).toBeGreaterThanOrEqual(3);

    const name = (record: EventRecord) =>
      `order's ${headerOf(record, "ce_type").split(".").at(-1)} ${headerOf(record, "ce_id")}`;
    expect(findingsOf(await auditCopy([...others, ended, placed]))).toEqual([
      `I6 ${completed}: ${name(placed)} is on the topic after a later event`,
    ]);
    expect(findingsOf(await auditCopy([...others, ended]))).toEqual([
      `I6 ${completed}: ${name(placed)} is PUBLISHED, but not on the topic`,
    ]);
    const forged = {
      ...ended,
      headers: { ...ended.headers, ce_id: Bun.randomUUIDv7(), ce_sequence: "9007199254740991" },
    };
    expect(findingsOf(await auditCopy([...records, forged]))).toEqual([
      `I6 ${completed}: ${name(forged)} is on the topic, but order has no such row`,
    ]);
  });
});

test("after all repairs the auditor finds nothing", async () => {
  const report = await audit({ ...sources, acknowledged, rereadIntervalMs });
  expect(brokenOf(report)).toEqual([]);
  expect(report.unsettledCount).toBe(0);
});
