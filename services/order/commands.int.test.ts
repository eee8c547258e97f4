import { afterAll, beforeAll, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { PaymentAuthorizedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { type Database, databaseNow } from "../kit/database.ts";
import { CommitOutcomeUnknownError } from "../kit/database-errors.ts";
import { createServiceSchema, eventually, readCounters, type TestSchema } from "../kit/testing.ts";
import { cancelOrder, parseCancelReason, timeOutOrders } from "./commands.ts";
import type { CommittedFact } from "./metrics.ts";
import { countOrdersInFlight, placeNewOrders, readOrders } from "./repository.ts";
import { countRows, deadlineMs, newId, newPlacement, noMetrics, orderInbox, outbox, received } from "./testing.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterAll(() => schema.drop());

const changed: string[] = [];
const commandDeps = () => ({
  database,
  outbox,
  newId,
  sagaMetrics: noMetrics,
  onChanged: (orderIds: readonly string[]) => void changed.push(...orderIds),
});
const timeOut = async (countMax: number, on = database) =>
  await timeOutOrders({ ...commandDeps(), database: on }, await databaseNow(on), countMax);
const place = async (deadline: number) => {
  const it = newPlacement();
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  await placeNewOrders(database, outbox, [{ ...it, event: { ...it.event, headers: { traceparent } } }], deadline);
  return it.order.orderId;
};
const setStatus = (orderId: string, status: string) =>
  database.execute("UPDATE orders SET status = ?, version = 2 WHERE order_id = ?", [status, orderId]);
const cancelRequestedEvents = async (orderId: string) =>
  await database.query<{ payload: string; headers: string }>(
    "SELECT payload, headers FROM order_outbox_event WHERE aggregate_id = ? AND type = 'shop.order.v1.OrderCancelRequested'",
    [orderId],
  );

const completion = (orderId: string) => received(create(PaymentAuthorizedSchema, { orderId }));
/** Returns whether the cancel or the completion won. Expects that the other one had no effect. */
const winnerOf = async (orderId: string, cancelled: PromiseSettledResult<unknown>) => {
  const winner = cancelled.status === "fulfilled" ? "cancel" : "completion";
  const [order] = await readOrders(database, [orderId]);
  const completedEvents = await countRows(
    database,
    "order_outbox_event",
    "aggregate_id = ? AND type = 'shop.order.v1.OrderCompleted'",
    [orderId],
  );
  expect(order?.status).toBe(winner === "cancel" ? "COMPENSATING" : "COMPLETED");
  expect(completedEvents).toBe(winner === "cancel" ? 0 : 1);
  expect((await cancelRequestedEvents(orderId)).length).toBe(winner === "cancel" ? 1 : 0);
  return winner;
};

test("a cancel starts the compensation once, in the order's own trace, and stores its reason", async () => {
  for (const status of ["PENDING", "STOCK_RESERVED"]) {
    const orderId = await place(deadlineMs);
    await setStatus(orderId, status);
    const cancelled = await cancelOrder(commandDeps(), orderId, "changed my mind");
    expect(cancelled).toMatchObject({ status: "COMPENSATING", failureReason: "CANCELLED", version: 3 });
    expect(await cancelOrder(commandDeps(), orderId, "again")).toMatchObject({ status: "COMPENSATING", version: 3 });
    const events = await cancelRequestedEvents(orderId);
    expect(events.map((event) => JSON.parse(event.payload))).toEqual([{ orderId, reason: "CANCELLED" }]);
    expect(events[0]?.headers).toContain("4bf92f3577b34da6a3ce929d0e0e4736");
    expect(await countRows(database, "orders", "order_id = ? AND cancel_reason = 'changed my mind'", [orderId])).toBe(
      1,
    );
    expect(await countRows(database, "orders", "order_id = ? AND deadline_at IS NULL", [orderId])).toBe(1);
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
      ...commandDeps(),
      database: losing,
      sagaMetrics: {
        recordFacts: (committed: readonly CommittedFact[]) =>
          void facts.push(...committed.map(({ fact }) => fact.kind)),
      },
      onChanged: (orderIds: readonly string[]) => void notified.push(...orderIds),
    };
    expect(await cancelOrder(deps, orderId, "lost")).toMatchObject({ status: "COMPENSATING", version: 2 });
    expect(lost).toBe(2);
    expect(notified).toEqual([orderId]);
    expect(facts).toEqual(["CompensationStarted"]);
    expect(await countRows(database, "orders", "order_id = ? AND cancel_reason = 'lost'", [orderId])).toBe(1);
  }
});

test("a cancel is refused for a completed order, for an unknown order, and with too long a reason", async () => {
  const orderId = await place(deadlineMs);
  await setStatus(orderId, "COMPLETED");
  await expect(cancelOrder(commandDeps(), orderId, "")).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  await expect(cancelOrder(commandDeps(), newId(), "")).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(() => parseCancelReason("x".repeat(501))).toThrow(/at most 500 characters, but has 501/);
  expect(parseCancelReason("x".repeat(500))).toHaveLength(500);
  // The longest reason fits the column, in any script.
  const emojis = "🙂".repeat(500);
  const other = await place(deadlineMs);
  await cancelOrder(commandDeps(), other, parseCancelReason(emojis));
  expect(await countRows(database, "orders", "order_id = ? AND cancel_reason = ?", [other, emojis])).toBe(1);
});

test("of a cancel and a completion at the same time one wins, and the other has no effect", async () => {
  const inbox = orderInbox(schema.open());
  for (let round = 0; round < 20; round++) {
    const orderId = await place(deadlineMs);
    await setStatus(orderId, "STOCK_RESERVED");
    const [cancelled] = await Promise.allSettled([
      cancelOrder(commandDeps(), orderId, ""),
      inbox.handle([completion(orderId)]),
    ]);
    await winnerOf(orderId, cancelled);
  }
});

test("of a cancel and a completion that wait for the order's lock, the one that came first wins", async () => {
  const inbox = orderInbox(schema.open());
  const lockWaits = (count: number) =>
    eventually(async () => {
      const waits = await readCounters("Innodb_row_lock_current_waits");
      expect(waits.get("Innodb_row_lock_current_waits")).toBe(count);
    });
  for (const [first, second] of [
    ["cancel", "completion"],
    ["completion", "cancel"],
  ] as const) {
    const orderId = await place(deadlineMs);
    await setStatus(orderId, "STOCK_RESERVED");
    const start = {
      cancel: () => cancelOrder(commandDeps(), orderId, ""),
      completion: () => inbox.handle([completion(orderId)]),
    };
    const started: { cancel?: Promise<unknown>; completion?: Promise<unknown> } = {};
    await database.transaction(async (transaction) => {
      await transaction.query("SELECT 1 FROM orders WHERE order_id = ? FOR UPDATE", [orderId]);
      started[first] = start[first]();
      await lockWaits(1);
      started[second] = start[second]();
      await lockWaits(2);
    });
    const [cancelled] = await Promise.allSettled([started.cancel, started.completion]);
    expect(await winnerOf(orderId, cancelled)).toBe(first);
  }
});

test("several instances at once time out each overdue order once, and leave decided and younger orders alone", async () => {
  const overdue = await Promise.all(Array.from({ length: 25 }, () => place(0)));
  const decided = await place(0);
  await database.execute("UPDATE orders SET status = 'COMPLETED', deadline_at = NULL WHERE order_id = ?", [decided]);
  const young = await place(deadlineMs);
  const counts = await Promise.all([1, 2, 3].map(() => timeOut(10, schema.open())));
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(25);
  expect(
    await countRows(
      database,
      "orders",
      "order_id IN (?) AND status = 'COMPENSATING' AND failure_reason = 'TIMED_OUT'",
      [overdue],
    ),
  ).toBe(25);
  expect(
    await countRows(database, "order_outbox_event", "aggregate_id IN (?) AND payload LIKE '%TIMED_OUT%'", [overdue]),
  ).toBe(25);
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
    expect(await countRows(database, "orders", "order_id = ? AND status = 'REVIEWED' AND version = 1", [unknown])).toBe(
      1,
    );
    expect((await countOrdersInFlight(database)).get("UNKNOWN")).toBe(1);
  } finally {
    await database.execute("UPDATE orders SET status = 'COMPLETED', deadline_at = NULL WHERE order_id = ?", [unknown]);
  }
});
