import { afterAll, beforeAll, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { StockReservedSchema } from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCompletedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { PaymentAuthorizedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import type { Inbox } from "../../relay/inbox/inbox.ts";
import type { Database } from "../kit/database.ts";
import { CommitOutcomeUnknownError } from "../kit/database-errors.ts";
import { createServiceSchema, readCounters, type TestSchema } from "../kit/testing.ts";
import { readOrders } from "./repository.ts";
import { countRows, newId, orderInbox, placedOrders, received } from "./testing.ts";

let schema: TestSchema;
let database: Database;
let inbox: Inbox;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
  inbox = orderInbox(database);
});
afterAll(() => schema.drop());

const reserved = (orderId: string) => received(create(StockReservedSchema, { orderId }));
const authorized = (orderId: string) => received(create(PaymentAuthorizedSchema, { orderId }));
const completedEvents = (orderIds: readonly string[]) =>
  countRows(database, "order_outbox_event", "aggregate_id IN (?) AND type = 'shop.order.v1.OrderCompleted'", [
    orderIds,
  ]);

test("a batch of events moves several orders, some by several steps, and publishes what follows", async () => {
  const orderIds = await placedOrders(database, 3);
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
  const [orderId = ""] = await placedOrders(database, 1);
  const [a, b] = [reserved(orderId), authorized(orderId)];
  await inbox.handle([a, a, b, b]);
  await inbox.handle([a, b]);
  expect(await completedEvents([orderId])).toBe(1);
  expect((await readOrders(database, [orderId]))[0]?.version).toBe(3);
});

test("events that several instances handle at the same time take effect once", async () => {
  const orderIds = await placedOrders(database, 50);
  const records = orderIds.flatMap((orderId) => [reserved(orderId), authorized(orderId)]);
  await Promise.all([
    inbox.handle(records),
    orderInbox(schema.open()).handle(records),
    orderInbox(schema.open()).handle(records),
  ]);
  expect(await completedEvents(orderIds)).toBe(50);
  expect(await countRows(database, "orders", "order_id IN (?) AND version = 3", [orderIds])).toBe(50);
});

test("a batch that is repeated because the answer to its COMMIT was lost changes nothing", async () => {
  const [orderId = ""] = await placedOrders(database, 1);
  const records = [reserved(orderId), authorized(orderId)];
  const losing: Database = {
    ...database,
    async transaction(work, options) {
      await database.transaction(work, options);
      throw new CommitOutcomeUnknownError("lost");
    },
  };
  await expect(orderInbox(losing).handle(records)).rejects.toThrow("lost");
  await inbox.handle(records);
  expect(await completedEvents([orderId])).toBe(1);
});

test("Order records events that it does not handle, its own included, and events of unknown orders", async () => {
  const orderId = newId();
  await inbox.handle([received(create(OrderCompletedSchema, { orderId })), reserved(orderId)]);
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
  const records = [newId(), newId()].map((orderId) => received(create(OrderCompletedSchema, { orderId })));
  const before = await readCounters("Com_%");
  await inbox.handle(records);
  const after = await readCounters("Com_%");
  const counted = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
  expect(["Com_insert", "Com_begin", "Com_select", "Com_commit"].map(counted)).toEqual([1, 0, 0, 0]);
  const more = received(create(OrderCompletedSchema, { orderId: newId() }));
  await inbox.handle([...records, more]);
  const keys = [...records, more].map(({ key }) => new TextDecoder().decode(key ?? undefined));
  expect(await countRows(database, "order_inbox_event", "aggregate_id IN (?) AND outcome = 'IGNORED'", [keys])).toBe(3);
});

test("a batch for 200 orders takes as many statements as a batch for one order", async () => {
  const statements = async (count: number) => {
    const records = (await placedOrders(database, count)).flatMap((orderId) => [
      reserved(orderId),
      authorized(orderId),
    ]);
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
