import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderPlacedSchema,
} from "../../proto/gen/shop/order/v1/events_pb.ts";
import { PaymentFailedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { createInbox } from "../../relay/inbox/inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { asTopicRecord, handleBatch, receivedEvent } from "../../relay/testing.ts";
import { type Database, insertRows, type Transaction } from "../kit/database.ts";
import { isDataError, isDuplicateKey } from "../kit/database-errors.ts";
import { silentLogger } from "../kit/log.ts";
import { countStatements, createServiceSchema, type TestSchema } from "../kit/testing.ts";
import type { InventoryMessage, Line } from "./domain.ts";
import { handledTypes, inventoryHandler } from "./handlers.ts";
import { seedStock } from "./seed.ts";

const newId = () => Bun.randomUUIDv7();
const handle = inventoryHandler({ newId });
const outbox = createOutbox({ service: "inventory", registry: eventRegistry });
let schema: TestSchema;
let database: Database;

beforeAll(async () => {
  schema = await createServiceSchema("inventory");
  database = schema.open();
});
afterAll(async () => {
  await schema.drop();
});
beforeEach(async () => {
  for (const table of ["stock", "reservation", "inventory_outbox_event"]) {
    await database.execute(`DELETE FROM ${table}`);
  }
});

const placed = (orderId: string, ...lines: readonly Line[]) =>
  create(OrderPlacedSchema, { orderId, lines: [...lines] });
const completed = (orderId: string) => create(OrderCompletedSchema, { orderId });
const paymentFailed = (orderId: string) => create(PaymentFailedSchema, { orderId });
const cancelRequested = (orderId: string) => create(OrderCancelRequestedSchema, { orderId });

/** Handles the messages as one batch. */
async function batch(...messages: readonly InventoryMessage[]) {
  const events = messages.map((message) => receivedEvent(message));
  const result = await database.transaction((transaction) => handleBatch(transaction, handle, outbox, events));
  return { events, ...result, types: result.publish.map(({ message }) => message.$typeName.split(".").at(-1)) };
}

async function addStock(sku: string, initial: number) {
  await database.execute("INSERT INTO stock (sku, initial, available) VALUES (?)", [[sku, initial, initial]]);
}

async function stockOf(sku: string) {
  const [level] = await database.query("SELECT available, held, sold FROM stock WHERE sku = ?", [sku]);
  return level;
}

async function reservations() {
  return await database.query("SELECT order_id, status, held_lines FROM reservation ORDER BY order_id");
}

test("a batch reserves one order, refuses a short one and one with an unknown SKU, and answers each", async () => {
  await addStock("sku-a", 10);
  await addStock("sku-b", 1);
  const { types, publish, ignored, events } = await batch(
    placed("order-1", { sku: "sku-a", quantity: 3 }, { sku: "sku-b", quantity: 1 }),
    placed("order-2", { sku: "sku-a", quantity: 8 }),
    placed("order-3", { sku: "sku-x", quantity: 1 }),
  );
  expect(types).toEqual(["StockReserved", "StockReservationFailed", "StockReservationFailed"]);
  expect(ignored).toEqual([]);
  expect(publish.map(({ aggregateId }) => aggregateId)).toEqual(["order-1", "order-2", "order-3"]);
  expect(publish.map(({ headers }) => headers.causationId)).toEqual(events.map(({ envelope }) => envelope.id));
  expect(publish.map(({ headers }) => headers.correlationId)).toEqual(["request-1", "request-1", "request-1"]);
  expect(await stockOf("sku-a")).toEqual({ available: 7, held: 3, sold: 0 });
  expect(await stockOf("sku-b")).toEqual({ available: 0, held: 1, sold: 0 });
  expect(await reservations()).toEqual([
    {
      order_id: "order-1",
      status: "HELD",
      held_lines: '[{"sku":"sku-a","quantity":3},{"sku":"sku-b","quantity":1}]',
    },
    { order_id: "order-2", status: "REFUSED", held_lines: "[]" },
    { order_id: "order-3", status: "REFUSED", held_lines: "[]" },
  ]);
});

test("of two orders in one batch that want the last piece, the first gets it", async () => {
  await addStock("sku-rare", 1);
  const { types } = await batch(
    placed("order-2", { sku: "sku-rare", quantity: 1 }),
    placed("order-1", { sku: "sku-rare", quantity: 1 }),
  );
  expect(types).toEqual(["StockReserved", "StockReservationFailed"]);
  expect(await stockOf("sku-rare")).toEqual({ available: 0, held: 1, sold: 0 });
});

test("stock that one order releases is available to the next order of the same batch", async () => {
  await addStock("sku-rare", 1);
  await batch(placed("order-1", { sku: "sku-rare", quantity: 1 }));
  const { types } = await batch(paymentFailed("order-1"), placed("order-2", { sku: "sku-rare", quantity: 1 }));
  expect(types).toEqual(["StockReleased", "StockReserved"]);
  expect(await stockOf("sku-rare")).toEqual({ available: 0, held: 1, sold: 0 });
});

test("releases and sales of one batch add up", async () => {
  await addStock("sku-a", 100);
  const orders = Array.from({ length: 9 }, (_, index) => `order-${index}`);
  await batch(...orders.map((orderId, index) => placed(orderId, { sku: "sku-a", quantity: index + 1 })));
  expect(await stockOf("sku-a")).toEqual({ available: 55, held: 45, sold: 0 });
  const { types } = await batch(
    completed("order-0"),
    paymentFailed("order-1"),
    cancelRequested("order-2"),
    completed("order-3"),
  );
  expect(types).toEqual(["StockReleased", "StockReleased"]);
  expect(await stockOf("sku-a")).toEqual({ available: 60, held: 35, sold: 5 });
});

test("a batch with whole sagas changes nothing when it is delivered again", async () => {
  await addStock("sku-a", 5);
  const messages = [
    placed("order-1", { sku: "sku-a", quantity: 2 }),
    completed("order-1"),
    cancelRequested("order-2"),
    placed("order-2", { sku: "sku-a", quantity: 2 }),
    paymentFailed("order-3"),
  ];
  const first = await batch(...messages);
  expect(first.types).toEqual(["StockReserved", "StockReleased"]);
  expect(first.ignored).toEqual(first.events.slice(3).map(({ envelope }) => envelope.id));
  const after = { stock: await stockOf("sku-a"), reservations: await reservations() };
  expect(after.stock).toEqual({ available: 3, held: 0, sold: 2 });
  const second = await batch(...messages);
  expect(second.publish).toEqual([]);
  expect(second.ignored).toEqual(second.events.map(({ envelope }) => envelope.id));
  expect({ stock: await stockOf("sku-a"), reservations: await reservations() }).toEqual(after);
});

test("two batches that want the same pieces at the same time reserve each piece once", async () => {
  const skus = Array.from({ length: 20 }, (_, index) => `sku-${index}`);
  for (const sku of skus) await addStock(sku, 10);
  const wishes = (name: string, order: readonly string[]) =>
    Array.from({ length: 8 }, (_, index) => placed(`${name}-${index}`, ...order.map((sku) => ({ sku, quantity: 1 }))));
  await Promise.all([batch(...wishes("left", skus)), batch(...wishes("right", skus.toReversed()))]);
  for (const sku of skus) expect(await stockOf(sku)).toEqual({ available: 0, held: 10, sold: 0 });
  const [held] = await database.query("SELECT COUNT(*) AS n FROM reservation WHERE status = 'HELD'");
  expect(Number(held?.n)).toBe(10);
});

test("a batch fails with a duplicate key, and writes nothing, if another instance has made the same reservation", async () => {
  await addStock("sku-a", 5);
  const error = await database
    .transaction(async (transaction) => {
      const late: Transaction = {
        ...transaction,
        async query(sql, values) {
          const rows = await transaction.query(sql, values);
          if (sql.includes("FROM reservation")) await batch(placed("order-1", { sku: "sku-a", quantity: 1 }));
          return rows as never;
        },
      };
      await handleBatch(late, handle, outbox, [receivedEvent(placed("order-1", { sku: "sku-a", quantity: 1 }))]);
    })
    .catch((it) => it);
  expect(isDuplicateKey(error)).toBe(true);
  expect(await stockOf("sku-a")).toEqual({ available: 4, held: 1, sold: 0 });
});

test("inventory handles a batch of 199 orders with as many statements as one order", async () => {
  const skus = Array.from({ length: 200 }, (_, index) => `sku-${index}`);
  for (const sku of skus) await addStock(sku, 1_000);
  await batch(...skus.map((sku, index) => placed(`old-${index}`, { sku, quantity: 1 })));
  const counted = async (from: number, to: number) =>
    await database.transaction(async (transaction) => {
      const events = skus
        .slice(from, to)
        .flatMap((sku, index) => [
          receivedEvent(placed(`new-${from + index}`, { sku, quantity: 1 })),
          receivedEvent(completed(`old-${from + index}`)),
        ]);
      const before = await countStatements(transaction);
      await handleBatch(transaction, handle, outbox, events);
      return (await countStatements(transaction)) - before;
    });
  const forOne = await counted(0, 1);
  // Reads reservations and stock, inserts and updates reservations, updates stock, inserts into the outbox.
  expect(forOne).toBe(6);
  expect(await counted(1, 200)).toBe(forOne);
});

test("a batch of 10,000 lines over 1,000 SKUs reserves them all", async () => {
  await seedStock(schema.url);
  const wishes = Array.from({ length: 500 }, (_, order) =>
    placed(
      `order-${order}`,
      ...Array.from({ length: 20 }, (_, line) => ({
        sku: `sku-${String(((order * 20 + line) % 1_000) + 1).padStart(4, "0")}`,
        quantity: 1,
      })),
    ),
  );
  const { types } = await batch(...wishes);
  expect(new Set(types)).toEqual(new Set(["StockReserved"]));
  const [row] = await database.query("SELECT SUM(held) AS held, COUNT(*) AS n FROM stock WHERE held = 10");
  expect({ held: Number(row?.held), n: Number(row?.n) }).toEqual({ held: 10_000, n: 1_000 });
});

test("the stock table refuses levels that are negative or do not add up", async () => {
  await addStock("sku-a", 5);
  for (const change of ["available = available - 1", "available = -1, held = 6", "held = 5, sold = -5"]) {
    const error = await database.execute(`UPDATE stock SET ${change} WHERE sku = 'sku-a'`).catch((it) => it);
    expect(isDataError(error)).toBe(true);
  }
});

test("seeding a second time changes no existing stock", async () => {
  await seedStock(schema.url);
  await batch(placed("order-1", { sku: "sku-rare", quantity: 1 }));
  await seedStock(schema.url);
  expect(await stockOf("sku-rare")).toEqual({ available: 0, held: 1, sold: 0 });
  expect(await stockOf("sku-none")).toEqual({ available: 0, held: 0, sold: 0 });
  const [row] = await database.query("SELECT COUNT(*) AS n, SUM(initial) AS initial FROM stock");
  expect({ n: Number(row?.n), initial: Number(row?.initial) }).toEqual({ n: 1_002, initial: 1_000_000_001 });
});

test("orders with many SKUs are handled in several transactions, none of which changes more than 5,000 SKUs", async () => {
  const skus = Array.from({ length: 100 }, (_, index) => `sku-${index}`);
  const orderIds = Array.from({ length: 120 }, (_, index) => `many-${index}`);
  await insertRows(
    database,
    "stock",
    ["sku", "initial", "available"],
    orderIds.flatMap((orderId) => skus.map((sku) => [`${orderId}-${sku}`, 1, 1])),
  );
  const largest: number[] = [];
  const watching: Database = {
    ...database,
    transaction: (work, options) =>
      database.transaction(
        (transaction) =>
          work({
            ...transaction,
            query(sql, values) {
              const [locked] = values ?? [];
              if (sql.includes("FROM stock") && Array.isArray(locked)) largest.push(locked.length);
              return transaction.query(sql, values);
            },
          }),
        options,
      ),
  };
  const inbox = createInbox<InventoryMessage>({
    service: "inventory",
    database: watching,
    registry: eventRegistry,
    handles: handledTypes,
    records: "handled",
    keyOf: ({ orderId }) => orderId,
    handle,
    outbox,
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId,
    log: silentLogger,
    metrics: new Registry(),
  });
  const record = (message: InventoryMessage, offset: number) =>
    asTopicRecord(
      { id: newId(), aggregateId: message.orderId, message, headers: {} },
      { ceSource: "/shop/order", offset },
    );
  const lines = (orderId: string) => skus.map((sku) => ({ sku: `${orderId}-${sku}`, quantity: 1 }));
  await inbox.handle(orderIds.map((orderId, index) => record(placed(orderId, ...lines(orderId)), index)));
  // The lines of a completed order are in its reservation, not in the event.
  await inbox.handle(orderIds.map((orderId, index) => record(completed(orderId), 1_000 + index)));
  const [stock] = await database.query("SELECT COUNT(*) AS skus, CAST(SUM(sold) AS SIGNED) AS sold FROM stock");
  expect(stock).toEqual({ skus: 12_000, sold: 12_000 });
  expect(await database.query("SELECT aggregate_id FROM inventory_parked_key")).toEqual([]);
  expect(Math.max(...largest)).toBeLessThanOrEqual(5_000);
}, 60_000);
