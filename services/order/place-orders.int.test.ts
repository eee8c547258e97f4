import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Database } from "../kit/database.ts";
import { CommitOutcomeUnknownError } from "../kit/database-errors.ts";
import { createServiceSchema, readCounters, type TestSchema } from "../kit/testing.ts";
import { createOrderPlacer } from "./place-orders.ts";
import { countRows, deadlineMs, neverAborted, newId, newPlacement, outbox } from "./testing.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterAll(() => schema.drop());

const placer = (on: Database = database) =>
  createOrderPlacer({ database: on, outbox, deadlineMs, onPlaced: () => undefined });

test("concurrent requests share a transaction, and each gets its own order", async () => {
  const { place } = placer();
  const placements = Array.from({ length: 150 }, () => newPlacement());
  const before = await readCounters("Com_commit");
  const placed = await Promise.all(placements.map((it) => place(it, neverAborted)));
  const commits = ((await readCounters("Com_commit")).get("Com_commit") ?? 0) - (before.get("Com_commit") ?? 0);
  // The first request is committed at once, alone. The others wait for it: 100 in the next transaction, 49 in the last.
  expect(commits).toBe(3);
  expect(placed.map((it) => it.orderId)).toEqual(placements.map((it) => it.order.orderId));
  const ids = [placements.map((it) => it.order.orderId)];
  expect(await countRows(database, "orders", "order_id IN (?)", ids)).toBe(150);
  expect(await countRows(database, "order_outbox_event", "aggregate_id IN (?) AND status = 'PENDING'", ids)).toBe(150);
});

test("an order that the database refuses does not fail the other orders of its group", async () => {
  const { place } = placer();
  const good = Array.from({ length: 9 }, () => newPlacement());
  const bad = newPlacement();
  // Four characters do not fit the column CHAR(3).
  const rejectedByDatabase = { ...bad, order: { ...bad.order, total: { currencyCode: "EURO", minorUnits: 1n } } };
  const results = await Promise.allSettled(
    [...good.slice(0, 5), rejectedByDatabase, ...good.slice(5)].map((it) => place(it, neverAborted)),
  );
  expect(results.map((result) => result.status === "rejected")).toEqual([
    ...Array(5).fill(false),
    true,
    ...Array(4).fill(false),
  ]);
  expect(await countRows(database, "orders", "order_id IN (?)", [good.map((it) => it.order.orderId)])).toBe(9);
  expect(await countRows(database, "order_outbox_event", "aggregate_id = ?", [bad.order.orderId])).toBe(0);
});

test("the same request at several instances at once makes one order", async () => {
  const requestId = newId();
  const placements = Array.from({ length: 12 }, () => newPlacement({ requestId }));
  const placers = [placer(), placer(schema.open()), placer(schema.open())];
  const placed = await Promise.all(placements.map((it, index) => placers[index % 3]?.place(it, neverAborted)));
  expect(new Set(placed.map((it) => it?.orderId)).size).toBe(1);
  expect(await countRows(database, "orders", "request_id = ?", [requestId])).toBe(1);
  expect(await countRows(database, "order_outbox_event", "aggregate_id = ?", [placed[0]?.orderId])).toBe(1);
});

test("a request id that is reused with other fields is refused, and the other requests of its group are not", async () => {
  const { place } = placer();
  const first = newPlacement();
  await place(first, neverAborted);
  const other = newPlacement({ requestId: first.order.requestId, paymentMethod: "pm_declined" });
  const results = await Promise.allSettled(
    [newPlacement(), other, newPlacement()].map((it) => place(it, neverAborted)),
  );
  expect(results.map((it) => it.status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  await expect(place(other, neverAborted)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
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
    const it = newPlacement();
    expect(await placer(losing).place(it, neverAborted)).toEqual({ orderId: it.order.orderId, status: "PENDING" });
    expect(lost).toBe(1);
    expect(await countRows(database, "orders", "request_id = ?", [it.order.requestId])).toBe(1);
    expect(await countRows(database, "order_outbox_event", "aggregate_id = ?", [it.order.orderId])).toBe(1);
  }
});
