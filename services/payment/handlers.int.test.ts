import { afterAll, beforeAll, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { eventRegistry, type HandledBy } from "../../proto/event-table.ts";
import { StockReservedSchema } from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCancelRequestedSchema, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { handleBatch, receivedEvent } from "../../relay/testing.ts";
import type { Database } from "../kit/database.ts";
import { countStatements, createServiceSchema, type TestSchema } from "../kit/testing.ts";
import { paymentHandler } from "./handlers.ts";
import { claimDuePayments, lockPayments, type Payment } from "./repository.ts";

const newId = () => Bun.randomUUIDv7();
/** The free slots of a stand-in for the worker, and the payments that it was given. */
let freeSlots = 0;
let started: Payment[] = [];
let woken = 0;
const handle = paymentHandler({
  newId,
  worker: { freeSlots: () => freeSlots, start: (claimed) => void started.push(...claimed), wake: () => void woken++ },
});
const outbox = createOutbox({ service: "payment", registry: eventRegistry });
let schema: TestSchema;
let database: Database;

beforeAll(async () => {
  schema = await createServiceSchema("payment");
  database = schema.open();
});
afterAll(async () => {
  await schema.drop();
});

type Handled = HandledBy<"payment">;

const placed = (orderId: string) =>
  create(OrderPlacedSchema, { orderId, total: { currencyCode: "EUR", minorUnits: 1999n }, paymentMethod: "pm_ok" });
const stockReserved = (orderId: string) => create(StockReservedSchema, { orderId });
const cancelRequested = (orderId: string) => create(OrderCancelRequestedSchema, { orderId });

/** Handles the messages as one batch. */
async function batch(...messages: readonly Handled[]) {
  const events = messages.map((message) => receivedEvent(message));
  const result = await database.transaction((transaction) => handleBatch(transaction, handle, outbox, events));
  result.onCommitted?.();
  return { events, ...result, types: result.publish.map(({ message }) => message.$typeName.split(".").at(-1)) };
}

async function paymentOf(orderId: string) {
  return (await database.transaction((transaction) => lockPayments(transaction, [orderId]))).payments.get(orderId);
}

const claim = async (limit: number) => (await claimDuePayments(database, { limit })).claimed;

test("a noted payment waits; after StockReserved its call is due at once, for one claimant", async () => {
  await batch(placed("due-1"), placed("due-2"), placed("due-3"));
  expect(await claim(10)).toEqual([]);
  const { events, publish } = await batch(stockReserved("due-1"), stockReserved("due-2"));
  expect(publish).toEqual([]);
  const claimed = (await Promise.all([claim(1), claim(10)])).flat();
  expect(claimed.map(({ state }) => state.orderId).toSorted()).toEqual(["due-1", "due-2"]);
  expect(claimed.map(({ pending }) => pending?.attempts)).toEqual([1, 1]);
  expect(await claim(10)).toEqual([]);
  expect(await paymentOf("due-1")).toMatchObject({
    state: { status: "AUTHORIZING", terms: { amount: { currencyCode: "EUR", minorUnits: 1999n } } },
    pending: {
      cause: { eventId: events[0]?.envelope.id ?? "", headers: { correlationId: "request-1" } },
      attempts: 1,
    },
  });
});

test("the commit that asks for calls claims as many as the worker has slots; the others are due at once", async () => {
  await batch(placed("slot-1"), placed("slot-2"), placed("slot-3"));
  freeSlots = 2;
  started = [];
  woken = 0;
  try {
    await batch(stockReserved("slot-1"), stockReserved("slot-2"), stockReserved("slot-3"));
  } finally {
    freeSlots = 0;
  }
  expect(started.map(({ state, pending }) => [state.orderId, state.status, pending?.attempts])).toEqual([
    ["slot-1", "AUTHORIZING", 1],
    ["slot-2", "AUTHORIZING", 1],
  ]);
  expect(woken).toBe(1);
  expect((await claim(10)).map(({ state }) => state.orderId)).toEqual(["slot-3"]);
  // This claim is a lease too: the row says when it ends.
  const [row] = await database.query<{ ms: number }>(
    "SELECT TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), next_attempt_at) DIV 1000 AS ms FROM payment WHERE order_id = 'slot-1'",
  );
  expect(row?.ms).toBeGreaterThan(0);
});

test("a claimed call without an outcome is due again after its lease", async () => {
  await batch(placed("lease-1"), stockReserved("lease-1"));
  const take = async () => (await claimDuePayments(database, { limit: 10, leaseMs: 0 })).claimed;
  expect((await take()).map(({ pending }) => pending?.attempts)).toEqual([1]);
  expect((await claim(10)).map(({ pending }) => pending?.attempts)).toEqual([2]);
});

test("a cancel makes the void due at once, in answer to the cancel, even while the authorise is claimed", async () => {
  await batch(placed("cancel-1"), stockReserved("cancel-1"));
  await claim(10);
  const { events, publish } = await batch(cancelRequested("cancel-1"));
  expect(publish).toEqual([]);
  const [claimed] = await claim(10);
  expect(claimed?.state.status).toBe("VOIDING");
  expect(claimed?.pending?.attempts).toBe(1);
  expect(claimed?.pending?.cause.eventId).toBe(events[0]?.envelope.id ?? "");
});

test("a batch with all events of several orders writes each order once and publishes in order", async () => {
  const { types, ignored, events } = await batch(
    cancelRequested("never-heard-of"),
    placed("noted"),
    cancelRequested("noted"),
    placed("never-heard-of"),
    stockReserved("never-heard-of"),
    stockReserved("noted"),
  );
  expect(types).toEqual(["PaymentVoided", "PaymentVoided"]);
  expect(ignored).toEqual(events.slice(3).map(({ envelope }) => envelope.id));
  expect((await paymentOf("never-heard-of"))?.state).toEqual({
    orderId: "never-heard-of",
    status: "VOIDED",
    voidedAmount: { currencyCode: "XXX", minorUnits: 0n },
    terms: undefined,
    authorizationId: undefined,
  });
  expect((await paymentOf("noted"))?.state.status).toBe("VOIDED");
  expect(await claim(10)).toEqual([]);
});

test("payment handles a batch of 199 orders with as many statements as one order", async () => {
  const old = Array.from({ length: 200 }, (_, index) => `old-${index}`);
  await batch(...old.map(placed));
  const counted = async (from: number, to: number) =>
    await database.transaction(async (transaction) => {
      const events = old
        .slice(from, to)
        .flatMap((orderId) => [
          receivedEvent(placed(`new-${orderId}`)),
          receivedEvent(stockReserved(orderId)),
          receivedEvent(cancelRequested(`cancelled-${orderId}`)),
        ]);
      const before = await countStatements(transaction);
      await handleBatch(transaction, handle, outbox, events);
      return (await countStatements(transaction)) - before;
    });
  const forOne = await counted(0, 1);
  // Reads the time and the payments, inserts and updates payments, inserts into the outbox.
  expect(forOne).toBe(5);
  expect(await counted(1, 200)).toBe(forOne);
});
