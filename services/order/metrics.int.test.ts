import { afterAll, beforeAll, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { Registry as Metrics } from "prom-client";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { PaymentAuthorizedSchema, PaymentFailedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { type Database, databaseNow, insertRows } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { createServiceSchema, readCounters, type TestSchema } from "../kit/testing.ts";
import { cancelOrder, timeOutOrders } from "./commands.ts";
import { createSagaMetrics } from "./metrics.ts";
import { createOrderPlacer } from "./place-orders.ts";
import { countOrdersInFlight } from "./repository.ts";
import {
  countRows,
  deadlineMs,
  neverAborted,
  newId,
  newPlacement,
  noMetrics,
  orderInbox,
  outbox,
  placedOrders,
  received,
} from "./testing.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterAll(() => schema.drop());

const shown = (text: string, series: string) =>
  text
    .split("\n")
    .find((line) => line.startsWith(`${series} `))
    ?.slice(series.length + 1);
const commandDeps = { outbox, newId, sagaMetrics: noMetrics, onChanged: () => undefined };

test("the saga metrics count each committed change once, and measure time by the database's clock", async () => {
  const metrics = new Metrics();
  const sagaMetrics = createSagaMetrics({ database, log: silentLogger, metrics });
  const inbox = orderInbox(database, sagaMetrics);
  const { place } = createOrderPlacer({ database, outbox, deadlineMs, onPlaced: sagaMetrics.recordPlaced });
  const placements = Array.from({ length: 6 }, () => newPlacement());
  const orderIds = (await Promise.all(placements.map((it) => place(it, neverAborted)))).map(({ orderId }) => orderId);
  // Repeating a request starts no new saga.
  const again = await place(newPlacement({ requestId: placements[0]?.order.requestId ?? "" }), neverAborted);
  expect(again.orderId).toBe(orderIds[0] ?? "");
  const [completed = "", declined = "", outOfStock = "", cancelled = "", timedOut = "", open = ""] = orderIds;
  await database.execute("UPDATE orders SET created_at = created_at - INTERVAL 40 SECOND WHERE order_id = ?", [
    completed,
  ]);
  const records = [
    received(create(StockReservedSchema, { orderId: completed })),
    received(create(PaymentAuthorizedSchema, { orderId: completed })),
    received(create(StockReservedSchema, { orderId: declined })),
    received(create(PaymentFailedSchema, { orderId: declined })),
    received(create(StockReleasedSchema, { orderId: declined })),
    received(create(StockReservationFailedSchema, { orderId: outOfStock })),
    received(create(StockReservedSchema, { orderId: open })),
  ];
  await inbox.handle(records);
  await inbox.handle(records);
  const deps = { ...commandDeps, database, sagaMetrics };
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
        String(await countRows(database, "orders", "status = ?", [status])),
      ),
    );
  const [, reserved = "", compensating = ""] = await placedOrders(database, 3);
  await database.execute("UPDATE orders SET status = 'STOCK_RESERVED' WHERE order_id = ?", [reserved]);
  await cancelOrder({ ...commandDeps, database }, compensating, "");
  expect(await figures(database)).toEqual(await counted());
  expect((await counted()).map(Number).every((count) => count > 0)).toBe(true);

  const readsOf = async (read: () => Promise<unknown>) => {
    const before = await readCounters("Handler_read%");
    await read();
    const after = await readCounters("Handler_read%");
    return [...after].reduce((sum, [name, value]) => sum + value - (before.get(name) ?? 0), 0);
  };
  // No deadline had passed at that time.
  const sweep = () => timeOutOrders({ ...commandDeps, database }, new Date("2020-01-01T00:00:00Z"), 100);
  const reads = [await readsOf(() => countOrdersInFlight(database)), await readsOf(sweep)];
  await insertRows(
    database,
    "orders",
    "order_id owner request_id status version lines_json currency_code total_minor payment_method".split(" "),
    Array.from({ length: 2_000 }, () => [newId(), "history", newId(), "COMPLETED", 3, "[]", "EUR", 0, "pm_ok"]),
  );
  expect(await countRows(database, "orders", "owner = 'history'")).toBe(2_000);
  expect([await readsOf(() => countOrdersInFlight(database)), await readsOf(sweep)]).toEqual(reads);

  const away: Database = {
    ...database,
    query: () => Promise.reject(Object.assign(new Error("refused"), { code: "ECONNREFUSED" })),
  };
  expect(await figures(away)).toEqual([undefined, undefined, undefined]);
});
