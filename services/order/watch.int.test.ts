import { afterAll, beforeAll, expect, test } from "bun:test";
import { Registry as Metrics } from "prom-client";
import type { Database } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { createServiceSchema, type TestSchema } from "../kit/testing.ts";
import { neverAborted, newId, placedOrders } from "./testing.ts";
import { createOrderWatch } from "./watch.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterAll(() => schema.drop());

const watchOn = (on: Database, heartbeatIntervalMs = 60_000) =>
  createOrderWatch({ database: on, log: silentLogger, metrics: new Metrics(), heartbeatIntervalMs });
const place = async () => {
  const [orderId = ""] = await placedOrders(database, 1);
  return orderId;
};
const move = (orderId: string, status: string, version: number) =>
  database.execute("UPDATE orders SET status = ?, version = ? WHERE order_id = ?", [status, version, orderId]);

test("a watcher gets the current state, then each change, and its stream ends after the final state", async () => {
  const watch = watchOn(database);
  const orderId = await place();
  const seen: string[] = [];
  for await (const update of watch.watch(orderId, 0, neverAborted)) {
    if (!("order" in update)) continue;
    seen.push(`${update.order.version} ${update.order.status}`);
    if (update.order.version < 3) {
      const next = update.order.version + 1;
      // Before the change is made, so that only a reread finds it.
      watch.mayHaveChanged([orderId]);
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
  const orderIds = await placedOrders(database, 600);
  // Two watchers of each order.
  const streams = [...orderIds, ...orderIds].map((orderId) => watch.watch(orderId, 0, neverAborted));
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
  const slow = watch.watch(orderId, 0, neverAborted);
  expect((await slow.next()).value).toMatchObject({ order: { version: 1 } });
  // A fast watcher of the same order sees every state, so every state was offered to the slow one.
  const seenByFast: number[] = [];
  for await (const update of watch.watch(orderId, 0, neverAborted)) {
    if (!("order" in update)) continue;
    const { version } = update.order;
    seenByFast.push(version);
    if (version < 3) await move(orderId, version === 1 ? "STOCK_RESERVED" : "COMPLETED", version + 1);
    watch.mayHaveChanged([orderId]);
  }
  expect(seenByFast).toEqual([1, 2, 3]);
  const seenBySlow: number[] = [];
  for await (const update of slow) if ("order" in update) seenBySlow.push(update.order.version);
  expect(seenBySlow).toEqual([3]);
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
  const updates = watch.watch(orderId, 0, neverAborted);
  await updates.next();
  away = true;
  const next = updates.next();
  watch.mayHaveChanged([orderId]);
  await move(orderId, "COMPLETED", 3);
  expect(await Promise.race([next, Bun.sleep(50).then(() => "still waiting")])).toBe("still waiting");
  away = false;
  expect((await next).value).toMatchObject({ order: { version: 3, status: "COMPLETED" } });
  expect((await updates.next()).done).toBe(true);
  watch.close();
});

test("watching an unknown order fails with NOT_FOUND, and a stream says so when its process shuts down", async () => {
  const watch = watchOn(database);
  await expect(watch.watch(newId(), 0, neverAborted).next()).rejects.toMatchObject({ code: "NOT_FOUND" });
  const updates = watch.watch(await place(), 0, neverAborted);
  await updates.next();
  const next = updates.next();
  watch.close();
  await expect(next).rejects.toThrow("shutting down");
});
