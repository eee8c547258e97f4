/** Order on a real database: group commit, racing requests, lost commits, batches of events, commands, metrics, watchers. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create, type Message } from "@bufbuild/protobuf";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCompletedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { PaymentAuthorizedSchema, PaymentFailedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { createInbox, type Inbox } from "../../relay/inbox/inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { asTopicRecord } from "../../relay/testing.ts";
import { type Database, databaseNow } from "../kit/database.ts";
import { CommitOutcomeUnknownError } from "../kit/database-errors.ts";
import { silentLogger } from "../kit/log.ts";
import { createServiceSchema, eventually, readCounters, type TestSchema } from "../kit/testing.ts";
import { cancelOrder, parseCancelReason, timeOutOrders } from "./commands.ts";
import { startDeadlineSweep } from "./deadline-sweep.ts";
import { handledTypes, orderHandler } from "./handlers.ts";
import { createSagaMetrics, type OrderStep } from "./metrics.ts";
import { createOrderPlacer } from "./place-orders.ts";
import { newOrder, orderPlaced, type PlacementRequest } from "./placement.ts";
import { countOrdersInFlight, type Placement, placeOrders, readOrders } from "./repository.ts";
import { createOrderWatch } from "./watch.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterAll(() => schema.drop());

const newId = () => Bun.randomUUIDv7();
const outbox = createOutbox({ service: "order", registry: eventRegistry });
const priceOf = () => ({ currencyCode: "EUR", minorUnits: 100n });
const hints = { send: () => undefined, sendLater: () => undefined, close: () => undefined };

function placement(change: Partial<PlacementRequest> = {}): Placement {
  const request = { owner: "", requestId: newId(), lines: [{ sku: "sku-1", quantity: 1 }], paymentMethod: "pm_ok" };
  const order = newOrder(newId(), { ...request, ...change }, priceOf);
  return { order, event: { id: newId(), aggregateId: order.orderId, message: orderPlaced(order), headers: {} } };
}

const placer = (on: Database = database) =>
  createOrderPlacer({ database: on, outbox, deadlineMs, onPlaced: () => undefined });
const deadlineMs = 300_000;
const forever = new AbortController().signal;
const uncounted = { stepped: () => undefined };

/** Order's inbox as main.ts creates it, on the given database. */
const inboxOf = (on: Database, sagas: Parameters<typeof orderHandler>[0]["sagas"] = uncounted) =>
  createInbox({
    service: "order",
    database: on,
    registry: eventRegistry,
    handles: handledTypes,
    records: "all",
    keyOf: ({ orderId }) => orderId,
    handle: orderHandler({ newId, sagas }),
    outbox,
    hints,
    newId,
    log: silentLogger,
    metrics: new Metrics(),
  });

async function countOf(table: string, where: string, values: readonly unknown[]): Promise<number> {
  const rows = await database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table} WHERE ${where}`, values);
  return Number(rows[0]?.n);
}

describe("placing", () => {
  test("concurrent requests share a transaction, and each gets its own order", async () => {
    const { place } = placer();
    const placements = Array.from({ length: 150 }, () => placement());
    const before = await readCounters("Com_commit");
    const placed = await Promise.all(placements.map((it) => place(it, forever)));
    const commits = ((await readCounters("Com_commit")).get("Com_commit") ?? 0) - (before.get("Com_commit") ?? 0);
    // The first request is committed at once, alone. The others wait for it: 100 in the next transaction, 49 in the last.
    expect(commits).toBe(3);
    expect(placed.map((it) => it.orderId)).toEqual(placements.map((it) => it.order.orderId));
    const ids = [placements.map((it) => it.order.orderId)];
    expect(await countOf("orders", "order_id IN (?)", ids)).toBe(150);
    expect(await countOf("order_outbox_event", "aggregate_id IN (?) AND status = 'PENDING'", ids)).toBe(150);
  });

  test("an order that the database refuses does not fail the other orders of its group", async () => {
    const { place } = placer();
    const good = Array.from({ length: 9 }, () => placement());
    const bad = placement();
    const tooLong = { ...bad, order: { ...bad.order, total: { currencyCode: "EURO", minorUnits: 1n } } };
    const results = await Promise.allSettled(
      [...good.slice(0, 5), tooLong, ...good.slice(5)].map((it) => place(it, forever)),
    );
    expect(results.map((result) => result.status === "rejected")).toEqual([
      ...Array(5).fill(false),
      true,
      ...Array(4).fill(false),
    ]);
    expect(await countOf("orders", "order_id IN (?)", [good.map((it) => it.order.orderId)])).toBe(9);
    expect(await countOf("order_outbox_event", "aggregate_id = ?", [bad.order.orderId])).toBe(0);
  });

  test("the same request at several instances at once makes one order", async () => {
    const requestId = newId();
    const placements = Array.from({ length: 12 }, () => placement({ requestId }));
    const placers = [placer(), placer(schema.open()), placer(schema.open())];
    const placed = await Promise.all(placements.map((it, index) => placers[index % 3]?.place(it, forever)));
    expect(new Set(placed.map((it) => it?.orderId)).size).toBe(1);
    expect(await countOf("orders", "request_id = ?", [requestId])).toBe(1);
    expect(await countOf("order_outbox_event", "aggregate_id = ?", [placed[0]?.orderId])).toBe(1);
  });

  test("a request id that is reused with other fields is refused, and the other requests of its group are not", async () => {
    const { place } = placer();
    const first = placement();
    await place(first, forever);
    const other = placement({ requestId: first.order.requestId, paymentMethod: "pm_declined" });
    const results = await Promise.allSettled([placement(), other, placement()].map((it) => place(it, forever)));
    expect(results.map((it) => it.status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    await expect(place(other, forever)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
  });

  test("a request whose COMMIT answer is lost makes one order, whether or not the COMMIT took place", async () => {
    for (const committed of [true, false]) {
      let lost = 0;
      const losing: Database = {
        ...database,
        async commit(statements) {
          lost++;
          if (committed) await database.commit(statements);
          throw new CommitOutcomeUnknownError("lost");
        },
      };
      const it = placement();
      expect(await placer(losing).place(it, forever)).toEqual({ orderId: it.order.orderId, status: "PENDING" });
      expect(lost).toBe(1);
      expect(await countOf("orders", "request_id = ?", [it.order.requestId])).toBe(1);
      expect(await countOf("order_outbox_event", "aggregate_id = ?", [it.order.orderId])).toBe(1);
    }
  });
});

describe("a batch of events", () => {
  let inbox: Inbox;
  beforeAll(() => {
    inbox = inboxOf(database);
  });
  const record = (message: Message & { readonly orderId: string }) =>
    asTopicRecord(
      { id: newId(), aggregateId: message.orderId, message, headers: { correlationId: "request" } },
      { source: "/shop/inventory" },
    );
  const placedOrders = async (count: number) => {
    const placements = Array.from({ length: count }, () => placement());
    await placeOrders(database, outbox, placements, deadlineMs);
    return placements.map((it) => it.order.orderId);
  };
  const reserved = (orderId: string) => record(create(StockReservedSchema, { orderId }));
  const authorized = (orderId: string) => record(create(PaymentAuthorizedSchema, { orderId }));
  const completedEvents = (orderIds: readonly string[]) =>
    countOf("order_outbox_event", "aggregate_id IN (?) AND type = 'shop.order.v1.OrderCompleted'", [orderIds]);

  test("a batch of events moves several orders, some by several steps, and publishes what follows", async () => {
    const orderIds = await placedOrders(3);
    const [first = "", second = "", third = ""] = orderIds;
    await inbox.handle([reserved(first), reserved(second), authorized(first), authorized(third)]);
    const orders = new Map((await readOrders(database, orderIds)).map((order) => [order.orderId, order]));
    expect([first, second, third].map((id) => [orders.get(id)?.status, orders.get(id)?.version])).toEqual([
      ["COMPLETED", 3],
      ["STOCK_RESERVED", 2],
      ["PENDING", 1],
    ]);
    expect(await completedEvents(orderIds)).toBe(1);
    const outcomes = await database.query<{ outcome: string }>(
      "SELECT outcome FROM order_inbox_event WHERE aggregate_id IN (?) ORDER BY type, aggregate_id",
      [orderIds],
    );
    expect(outcomes.map((row) => row.outcome).sort()).toEqual(["HANDLED", "HANDLED", "HANDLED", "IGNORED"]);
  });

  test("events that are delivered twice, in one batch or in two, take effect once", async () => {
    const [orderId = ""] = await placedOrders(1);
    const [a, b] = [reserved(orderId), authorized(orderId)];
    await inbox.handle([a, a, b, b]);
    await inbox.handle([a, b]);
    expect(await completedEvents([orderId])).toBe(1);
    expect((await readOrders(database, [orderId]))[0]?.version).toBe(3);
  });

  test("events that several instances handle at the same time take effect once", async () => {
    const orderIds = await placedOrders(50);
    const records = orderIds.flatMap((orderId) => [reserved(orderId), authorized(orderId)]);
    await Promise.all([
      inbox.handle(records),
      inboxOf(schema.open()).handle(records),
      inboxOf(schema.open()).handle(records),
    ]);
    expect(await completedEvents(orderIds)).toBe(50);
    expect(await countOf("orders", "order_id IN (?) AND version = 3", [orderIds])).toBe(50);
  });

  test("a batch that is repeated because the answer to its COMMIT was lost changes nothing", async () => {
    const [orderId = ""] = await placedOrders(1);
    const records = [reserved(orderId), authorized(orderId)];
    const losing: Database = {
      ...database,
      async transaction(work, options) {
        await database.transaction(work, options);
        throw new CommitOutcomeUnknownError("lost");
      },
    };
    await expect(inboxOf(losing).handle(records)).rejects.toThrow("lost");
    await inbox.handle(records);
    expect(await completedEvents([orderId])).toBe(1);
  });

  test("Order records events that it does not handle, its own included, and events of unknown orders", async () => {
    const orderId = newId();
    await inbox.handle([record(create(OrderCompletedSchema, { orderId })), reserved(orderId)]);
    const rows = await database.query(
      "SELECT type, outcome FROM order_inbox_event WHERE aggregate_id = ? ORDER BY type",
      [orderId],
    );
    expect(rows).toEqual([
      { type: "shop.inventory.v1.StockReserved", outcome: "IGNORED" },
      { type: "shop.order.v1.OrderCompleted", outcome: "IGNORED" },
    ]);
  });

  test("events that Order only records take one statement and are recorded once, however often they are delivered", async () => {
    const records = [newId(), newId()].map((orderId) => record(create(OrderCompletedSchema, { orderId })));
    const before = await readCounters("Com_%");
    await inbox.handle(records);
    const after = await readCounters("Com_%");
    const counted = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
    expect(["Com_insert", "Com_begin", "Com_select", "Com_commit"].map(counted)).toEqual([1, 0, 0, 0]);
    const more = record(create(OrderCompletedSchema, { orderId: newId() }));
    await inbox.handle([...records, more]);
    const keys = [...records, more].map(({ key }) => new TextDecoder().decode(key ?? undefined));
    expect(await countOf("order_inbox_event", "aggregate_id IN (?) AND outcome = 'IGNORED'", [keys])).toBe(3);
  });

  test("a batch of 200 events takes as many statements as a batch of one", async () => {
    const statements = async (count: number) => {
      const records = (await placedOrders(count)).flatMap((orderId) => [reserved(orderId), authorized(orderId)]);
      const before = await readCounters("Com_%");
      await inbox.handle(records);
      const after = await readCounters("Com_%");
      const counted = (...names: readonly string[]) =>
        names.reduce((sum, name) => sum + (after.get(name) ?? 0) - (before.get(name) ?? 0), 0);
      return {
        begin: counted("Com_begin"),
        select: counted("Com_select"),
        insert: counted("Com_insert"),
        update: counted("Com_update", "Com_update_multi"),
        commit: counted("Com_commit"),
        rollback: counted("Com_rollback"),
      };
    };
    const one = await statements(1);
    expect(one).toEqual({ begin: 1, select: 3, insert: 2, update: 1, commit: 1, rollback: 0 });
    expect(await statements(200)).toEqual(one);
  });
});

describe("cancelling and timing out", () => {
  const changed: string[] = [];
  const commands = () => ({
    database,
    outbox,
    newId,
    sagas: uncounted,
    onChanged: (orderIds: readonly string[]) => void changed.push(...orderIds),
  });
  const timeOut = async (countMax: number, on = database) =>
    await timeOutOrders({ ...commands(), database: on }, await databaseNow(on), countMax);
  const place = async (deadline: number) => {
    const it = placement();
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    await placeOrders(database, outbox, [{ ...it, event: { ...it.event, headers: { traceparent } } }], deadline);
    return it.order.orderId;
  };
  const set = (orderId: string, status: string) =>
    database.execute("UPDATE orders SET status = ?, version = 2 WHERE order_id = ?", [status, orderId]);
  const requests = async (orderId: string) =>
    await database.query<{ payload: string; headers: string }>(
      "SELECT payload, headers FROM order_outbox_event WHERE aggregate_id = ? AND type = 'shop.order.v1.OrderCancelRequested'",
      [orderId],
    );

  test("a cancel starts the compensation once, in the order's own trace, and stores its reason", async () => {
    for (const status of ["PENDING", "STOCK_RESERVED"]) {
      const orderId = await place(deadlineMs);
      await set(orderId, status);
      const cancelled = await cancelOrder(commands(), orderId, "changed my mind");
      expect(cancelled).toMatchObject({ status: "COMPENSATING", failureReason: "CANCELLED", version: 3 });
      expect(await cancelOrder(commands(), orderId, "again")).toMatchObject({ status: "COMPENSATING", version: 3 });
      const events = await requests(orderId);
      expect(events.map((event) => JSON.parse(event.payload))).toEqual([{ orderId, reason: "CANCELLED" }]);
      expect(events[0]?.headers).toContain("4bf92f3577b34da6a3ce929d0e0e4736");
      expect(await countOf("orders", "order_id = ? AND cancel_reason = 'changed my mind'", [orderId])).toBe(1);
      expect(await countOf("orders", "order_id = ? AND deadline_at IS NULL", [orderId])).toBe(1);
      expect(changed).toContain(orderId);
    }
  });

  test("a cancel whose COMMIT answer is lost takes effect and is reported once, whether or not the COMMIT took place", async () => {
    for (const committed of [true, false]) {
      const orderId = await place(deadlineMs);
      let lost = 0;
      const losing: Database = {
        ...database,
        async transaction(work, options) {
          if (lost++ > 0) return await database.transaction(work, options);
          const rollBack = new Error("rolled back");
          await database
            .transaction(async (transaction) => {
              await work(transaction);
              if (!committed) throw rollBack;
            }, options)
            .catch((error) => {
              if (error !== rollBack) throw error;
            });
          throw new CommitOutcomeUnknownError("lost");
        },
      };
      const notified: string[] = [];
      const facts: string[] = [];
      const deps = {
        ...commands(),
        database: losing,
        sagas: { stepped: (steps: readonly OrderStep[]) => void facts.push(...steps.map(({ fact }) => fact.kind)) },
        onChanged: (orderIds: readonly string[]) => void notified.push(...orderIds),
      };
      expect(await cancelOrder(deps, orderId, "lost")).toMatchObject({ status: "COMPENSATING", version: 2 });
      expect(lost).toBe(2);
      expect(notified).toEqual([orderId]);
      expect(facts).toEqual(["CompensationStarted"]);
      expect(await countOf("orders", "order_id = ? AND cancel_reason = 'lost'", [orderId])).toBe(1);
    }
  });

  test("a cancel is refused for a completed order, for an unknown order, and with too long a reason", async () => {
    const orderId = await place(deadlineMs);
    await set(orderId, "COMPLETED");
    await expect(cancelOrder(commands(), orderId, "")).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await expect(cancelOrder(commands(), newId(), "")).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(() => parseCancelReason("x".repeat(501))).toThrow(/at most 500 characters, but has 501/);
    expect(parseCancelReason("x".repeat(500))).toHaveLength(500);
    // The longest reason fits the column, in any script.
    const emojis = "🙂".repeat(500);
    const other = await place(deadlineMs);
    await cancelOrder(commands(), other, parseCancelReason(emojis));
    expect(await countOf("orders", "order_id = ? AND cancel_reason = ?", [other, emojis])).toBe(1);
  });

  test("of a cancel and a completion at the same time one wins, and the other has no effect", async () => {
    const inbox = inboxOf(schema.open());
    const outcomes = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const orderId = await place(deadlineMs);
      await set(orderId, "STOCK_RESERVED");
      const message = create(PaymentAuthorizedSchema, { orderId });
      const record = asTopicRecord(
        { id: newId(), aggregateId: orderId, message, headers: {} },
        { source: "/shop/payment" },
      );
      const [cancelled] = await Promise.allSettled([cancelOrder(commands(), orderId, ""), inbox.handle([record])]);
      const [order] = await readOrders(database, [orderId]);
      const completedEvents = await countOf(
        "order_outbox_event",
        "aggregate_id = ? AND type = 'shop.order.v1.OrderCompleted'",
        [orderId],
      );
      const won = cancelled.status === "fulfilled" ? "COMPENSATING" : "COMPLETED";
      expect(order?.status).toBe(won);
      expect(completedEvents).toBe(won === "COMPLETED" ? 1 : 0);
      expect((await requests(orderId)).length).toBe(won === "COMPLETED" ? 0 : 1);
      outcomes.add(won);
    }
    expect(outcomes.size).toBeGreaterThan(0);
  });

  test("several instances at once time out each overdue order once, and leave decided and younger orders alone", async () => {
    const overdue = await Promise.all(Array.from({ length: 25 }, () => place(0)));
    const decided = await place(0);
    await database.execute("UPDATE orders SET status = 'COMPLETED', deadline_at = NULL WHERE order_id = ?", [decided]);
    const young = await place(deadlineMs);
    const counts = await Promise.all([1, 2, 3].map(() => timeOut(10, schema.open())));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(25);
    expect(
      await countOf("orders", "order_id IN (?) AND status = 'COMPENSATING' AND failure_reason = 'TIMED_OUT'", [
        overdue,
      ]),
    ).toBe(25);
    expect(await countOf("order_outbox_event", "aggregate_id IN (?) AND payload LIKE '%TIMED_OUT%'", [overdue])).toBe(
      25,
    );
    expect((await readOrders(database, [decided]))[0]?.status).toBe("COMPLETED");
    expect((await readOrders(database, [young]))[0]?.status).toBe("PENDING");
    expect(await timeOut(10)).toBe(0);
  });

  test("an overdue order in a status that this version does not know stays as it is, is counted, and stops no other time-out", async () => {
    const [unknown, overdue] = [await place(0), await place(0)];
    await database.execute(
      "UPDATE orders SET status = 'REVIEWED', deadline_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY WHERE order_id = ?",
      [unknown],
    );
    try {
      expect(await timeOut(1)).toBe(1);
      expect((await readOrders(database, [overdue]))[0]?.status).toBe("COMPENSATING");
      expect(await countOf("orders", "order_id = ? AND status = 'REVIEWED' AND version = 1", [unknown])).toBe(1);
      expect((await countOrdersInFlight(database)).get("UNKNOWN")).toBe(1);
    } finally {
      await database.execute("UPDATE orders SET status = 'COMPLETED', deadline_at = NULL WHERE order_id = ?", [
        unknown,
      ]);
    }
  });

  test("a deadline that passes after the sweep has read the clock is left to the next sweep", async () => {
    let orderId = "";
    let checks = 0;
    const sweep = startDeadlineSweep({
      commands: commands(),
      topicProgress: {
        async isCaughtUp() {
          // Caught up once: this is a process that was suspended between reading the clock and giving up orders.
          if (checks++ > 0) return false;
          // 5 ms, so that the deadline is later than the clock that the sweep has read.
          orderId = await place(5);
          await eventually(async () => {
            const [row] = await database.query(
              "SELECT deadline_at < CURRENT_TIMESTAMP(3) AS passed FROM orders WHERE order_id = ?",
              [orderId],
            );
            expect(row?.passed).toBe(1);
          });
          return true;
        },
        close: async () => undefined,
      },
      log: silentLogger,
      metrics: new Metrics(),
      intervalMs: 5,
    });
    await eventually(() => expect(checks).toBeGreaterThan(1));
    await sweep.close();
    expect((await readOrders(database, [orderId]))[0]?.status).toBe("PENDING");
    expect(await timeOut(10)).toBe(1);
  });

  test("the deadline sweep gives up no order while Order has not handled all of the topic, or no broker answers", async () => {
    const orderId = await place(0);
    const answers: (boolean | Error)[] = [false, new Error("no broker"), false];
    let checks = 0;
    const sweep = startDeadlineSweep({
      commands: commands(),
      topicProgress: {
        async isCaughtUp() {
          const answer = answers[checks++] ?? true;
          if (answer instanceof Error) throw answer;
          if (answer) expect((await readOrders(database, [orderId]))[0]?.status).toBe("PENDING");
          return answer;
        },
        close: async () => undefined,
      },
      log: silentLogger,
      metrics: new Metrics(),
      intervalMs: 5,
    });
    await eventually(() => expect(checks).toBeGreaterThan(answers.length + 1));
    await sweep.close();
    expect((await readOrders(database, [orderId]))[0]).toMatchObject({
      status: "COMPENSATING",
      failureReason: "TIMED_OUT",
    });
  });
});

describe("saga metrics", () => {
  const shown = (text: string, series: string) =>
    text
      .split("\n")
      .find((line) => line.startsWith(`${series} `))
      ?.slice(series.length + 1);
  const record = (message: Message & { readonly orderId: string }) =>
    asTopicRecord({ id: newId(), aggregateId: message.orderId, message, headers: {} }, { source: "/shop/test" });

  const commandDeps = { outbox, newId, sagas: uncounted, onChanged: () => undefined };

  test("the saga metrics count each committed change once, and measure time by the database's clock", async () => {
    const metrics = new Metrics();
    const sagas = createSagaMetrics({ database, log: silentLogger, metrics });
    const inbox = inboxOf(database, sagas);
    const { place } = createOrderPlacer({ database, outbox, deadlineMs, onPlaced: sagas.started });
    const requests = Array.from({ length: 6 }, () => placement());
    const orderIds = (await Promise.all(requests.map((it) => place(it, forever)))).map(({ orderId }) => orderId);
    // Repeating a request starts no new saga.
    const again = await place(placement({ requestId: requests[0]?.order.requestId ?? "" }), forever);
    expect(again.orderId).toBe(orderIds[0] ?? "");
    const [completed = "", declined = "", outOfStock = "", cancelled = "", timedOut = "", open = ""] = orderIds;
    await database.execute("UPDATE orders SET created_at = created_at - INTERVAL 40 SECOND WHERE order_id = ?", [
      completed,
    ]);
    const records = [
      record(create(StockReservedSchema, { orderId: completed })),
      record(create(PaymentAuthorizedSchema, { orderId: completed })),
      record(create(StockReservedSchema, { orderId: declined })),
      record(create(PaymentFailedSchema, { orderId: declined })),
      record(create(StockReleasedSchema, { orderId: declined })),
      record(create(StockReservationFailedSchema, { orderId: outOfStock })),
      record(create(StockReservedSchema, { orderId: open })),
    ];
    await inbox.handle(records);
    await inbox.handle(records);
    const deps = { ...commandDeps, database, sagas };
    await cancelOrder(deps, cancelled, "");
    await cancelOrder(deps, cancelled, "");
    await database.execute("UPDATE orders SET deadline_at = CURRENT_TIMESTAMP(3) WHERE order_id = ?", [timedOut]);
    await timeOutOrders(deps, await databaseNow(database), 10);

    const text = await metrics.metrics();
    expect({
      started: shown(text, "order_sagas_started_total"),
      completed: shown(text, "order_sagas_completed_total"),
      outOfStock: shown(text, 'order_sagas_failed_total{reason="OUT_OF_STOCK"}'),
      declined: shown(text, 'order_sagas_failed_total{reason="PAYMENT_DECLINED"}'),
      neverFailed: shown(text, 'order_sagas_failed_total{reason="CANCELLED"}'),
      compensations: ["PAYMENT_DECLINED", "CANCELLED", "TIMED_OUT"].map((reason) =>
        shown(text, `order_compensations_total{reason="${reason}"}`),
      ),
    }).toEqual({
      started: "6",
      completed: "1",
      outOfStock: "1",
      declined: "1",
      neverFailed: "0",
      compensations: ["1", "1", "1"],
    });
    expect(shown(text, 'order_saga_seconds_bucket{le="30",result="COMPLETED"}')).toBe("0");
    expect(shown(text, 'order_saga_seconds_bucket{le="60",result="COMPLETED"}')).toBe("1");
    expect(shown(text, 'order_saga_seconds_count{result="PAYMENT_DECLINED"}')).toBe("1");
  });

  test("the orders in flight are counted by status, reading only those orders, and not shown while the database is away", async () => {
    const figures = async (on: Database) => {
      const metrics = new Metrics();
      createSagaMetrics({ database: on, log: silentLogger, metrics });
      const text = await metrics.metrics();
      return ["PENDING", "STOCK_RESERVED", "COMPENSATING"].map((status) =>
        shown(text, `order_sagas_in_flight{status="${status}"}`),
      );
    };
    const counted = async () =>
      await Promise.all(
        ["PENDING", "STOCK_RESERVED", "COMPENSATING"].map(async (status) =>
          String(await countOf("orders", "status = ?", [status])),
        ),
      );
    // The tests before this one have left orders in every status.
    expect(await figures(database)).toEqual(await counted());
    expect((await counted()).map(Number).every((count) => count > 0)).toBe(true);

    const readsOf = async (look: () => Promise<unknown>) => {
      const before = await readCounters("Handler_read%");
      await look();
      const after = await readCounters("Handler_read%");
      return [...after].reduce((sum, [name, value]) => sum + value - (before.get(name) ?? 0), 0);
    };
    // No deadline had passed at that time.
    const sweep = () => timeOutOrders({ ...commandDeps, database }, new Date("2020-01-01T00:00:00Z"), 100);
    const reads = [await readsOf(() => countOrdersInFlight(database)), await readsOf(sweep)];
    await database.execute(
      `INSERT INTO orders (order_id, owner, request_id, status, version, lines_json, currency_code, total_minor, payment_method)
       SELECT UUID(), 'history', UUID(), 'COMPLETED', 3, '[]', 'EUR', 0, 'pm_ok'
         FROM order_inbox_event a, order_inbox_event b LIMIT 2000`,
    );
    expect(await countOf("orders", "owner = 'history'", [])).toBe(2_000);
    expect([await readsOf(() => countOrdersInFlight(database)), await readsOf(sweep)]).toEqual(reads);

    const away: Database = {
      ...database,
      query: () => Promise.reject(Object.assign(new Error("refused"), { code: "ECONNREFUSED" })),
    };
    expect(await figures(away)).toEqual([undefined, undefined, undefined]);
  });
});

describe("watching", () => {
  const watchOn = (on: Database, heartbeatIntervalMs = 60_000) =>
    createOrderWatch({ database: on, log: silentLogger, metrics: new Metrics(), heartbeatIntervalMs });
  const place = async () => {
    const it = placement();
    await placeOrders(database, outbox, [it], deadlineMs);
    return it.order.orderId;
  };
  const move = (orderId: string, status: string, version: number) =>
    database.execute("UPDATE orders SET status = ?, version = ? WHERE order_id = ?", [status, version, orderId]);

  test("a watcher gets the current state, then each change that a hint announces, and its stream ends after the final state", async () => {
    const watch = watchOn(database);
    const orderId = await place();
    const seen: string[] = [];
    for await (const update of watch.watch(orderId, 0, forever)) {
      if (!("order" in update)) continue;
      seen.push(`${update.order.version} ${update.order.status}`);
      if (update.order.version < 3) {
        const next = update.order.version + 1;
        // The hint arrives before the change, so that only a reread finds it.
        watch.hint([orderId]);
        setTimeout(() => move(orderId, next === 3 ? "COMPLETED" : "STOCK_RESERVED", next), 30);
      }
    }
    expect(seen).toEqual(["1 PENDING", "2 STOCK_RESERVED", "3 COMPLETED"]);
    watch.close();
  });

  test("watchers that come together are read together, 500 in a statement, and each gets its own order", async () => {
    const sent: number[] = [];
    const counting: Database = {
      ...database,
      pipeline(statements) {
        sent.push(statements.length);
        return database.pipeline(statements);
      },
    };
    const watch = watchOn(counting);
    const orderIds = await Promise.all(Array.from({ length: 600 }, place));
    // Two watchers of each order.
    const streams = [...orderIds, ...orderIds].map((orderId) => watch.watch(orderId, 0, forever));
    const firsts = await Promise.all(streams.map((updates) => updates.next()));
    // 600 orders in one round trip of two statements.
    expect(sent).toEqual([2]);
    const seen = firsts.map(({ value }) => (value !== undefined && "order" in value ? value.order.orderId : "none"));
    expect(seen).toEqual([...orderIds, ...orderIds]);
    watch.close();
  });

  test("a slow watcher skips states and gets the latest one", async () => {
    const watch = watchOn(database);
    const orderId = await place();
    const updates = watch.watch(orderId, 0, forever);
    expect((await updates.next()).value).toMatchObject({ order: { version: 1 } });
    await move(orderId, "STOCK_RESERVED", 2);
    watch.hint([orderId]);
    await move(orderId, "COMPLETED", 3);
    watch.hint([orderId]);
    const rest: number[] = [];
    await eventually(async () => {
      for await (const update of updates) if ("order" in update) rest.push(update.order.version);
      expect(rest.at(-1)).toBe(3);
    });
    expect(rest.length).toBeLessThanOrEqual(2);
    watch.close();
  });

  test("a quiet stream carries heartbeats, and a watcher that leaves is no longer counted", async () => {
    const metrics = new Metrics();
    const watch = createOrderWatch({ database, log: silentLogger, metrics, heartbeatIntervalMs: 10 });
    const leaving = new AbortController();
    const orderId = await place();
    const updates = watch.watch(orderId, 0, leaving.signal);
    await updates.next();
    expect((await updates.next()).value).toEqual({ heartbeat: expect.any(Date) });
    expect(await metrics.metrics()).toContain("order_watchers 1");
    const waiting = updates.next();
    leaving.abort();
    // One more heartbeat may have been sent before the caller left.
    for (let step = await waiting; !step.done; step = await updates.next());
    expect(await metrics.metrics()).toContain("order_watchers 0");
    watch.close();
  });

  test("a stream stays open while the database is away, and continues where it was", async () => {
    let away = false;
    const flaky: Database = {
      ...database,
      async pipeline(statements) {
        if (away) throw Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
        return await database.pipeline(statements);
      },
    };
    const watch = watchOn(flaky);
    const orderId = await place();
    const updates = watch.watch(orderId, 0, forever);
    await updates.next();
    away = true;
    const next = updates.next();
    watch.hint([orderId]);
    await move(orderId, "COMPLETED", 3);
    expect(await Promise.race([next, Bun.sleep(50).then(() => "still waiting")])).toBe("still waiting");
    away = false;
    expect((await next).value).toMatchObject({ order: { version: 3, status: "COMPLETED" } });
    expect((await updates.next()).done).toBe(true);
    watch.close();
  });

  test("watching an unknown order fails with NOT_FOUND, and a stream says so when its process shuts down", async () => {
    const watch = watchOn(database);
    await expect(watch.watch(newId(), 0, forever).next()).rejects.toMatchObject({ code: "NOT_FOUND" });
    const updates = watch.watch(await place(), 0, forever);
    await updates.next();
    const next = updates.next();
    watch.close();
    await expect(next).rejects.toThrow("shutting down");
  });
});
