/** The inbox consumer on a real broker and a real database, with a handler that this test defines. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { createConnection } from "mysql2/promise";
import { Registry as Metrics } from "prom-client";
import { type EventRecord, toOutboxRow, toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { type OrderPlaced, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { type Database, openDatabase } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { insertStatements } from "../../services/kit/statements.ts";
import { createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { TopicConsumer } from "../kafka/consumer.ts";
import { partitionOf } from "../kafka/partitioner.ts";
import { openProducer } from "../kafka/producer.ts";
import { oddRecords, produceRaw } from "../kafka/testing.ts";
import { createOutbox } from "../outbox/append.ts";
import { createTestTopic, testKafka } from "../testing.ts";
import { startConsumer } from "./consumer.ts";
import type { ReceivedEvent } from "./handler.ts";
import { createInbox } from "./inbox.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  // Any service's tables will do: the handler writes its effect into an extra table.
  schema = await createServiceSchema("inventory");
  database = schema.open();
  await database.execute("CREATE TABLE effect (order_id CHAR(36), number INT NOT NULL AUTO_INCREMENT PRIMARY KEY)");
});
afterAll(() => schema.drop());

const newId = () => Bun.randomUUIDv7();

function record(orderId = newId(), change: Readonly<Record<string, string>> = {}): EventRecord {
  const message = create(OrderPlacedSchema, { orderId });
  const row = toOutboxRow({ id: newId(), aggregateId: orderId, message, headers: {} }, eventRegistry);
  const made = toRecord(
    { ...row, occurredAt: new Date(), seq: "1" },
    { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry },
  );
  return { ...made, headers: { ...made.headers, ...change } };
}

async function produce(topic: string, records: readonly EventRecord[]) {
  const producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
  await producer.send(topic, records);
  await producer.close();
}

/** A consumer whose handler inserts one row per event, after `eventSeconds` for each of them in the database. */
async function consume(
  topic: string,
  options: { readonly on?: Database; readonly group: string; readonly eventSeconds?: number },
) {
  const metrics = new Metrics();
  const batches: number[] = [];
  const inbox = createInbox<OrderPlaced>({
    service: "inventory",
    database: options.on ?? database,
    registry: eventRegistry,
    handles: new Set(["shop.order.v1.OrderPlaced"]),
    records: "handled",
    keyOf: ({ orderId }) => orderId,
    async handle(transaction, events: readonly ReceivedEvent<OrderPlaced>[]) {
      batches.push(events.length);
      const { eventSeconds } = options;
      if (eventSeconds !== undefined) await transaction.query("SELECT SLEEP(?)", [eventSeconds * events.length]);
      const rows = events.map((it) => [it.message.orderId]);
      return { writes: insertStatements("effect", ["order_id"], rows), publish: [], ignored: [] };
    },
    outbox: createOutbox({ service: "inventory", registry: eventRegistry }),
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId,
    log: silentLogger,
    metrics,
  });
  const consumer: TopicConsumer = await startConsumer({
    service: options.group,
    topic,
    kafka: testKafka(),
    inbox,
    log: silentLogger,
    metrics,
    // An uncaught exception, which fails the test.
    onCrash: (error) => {
      throw error;
    },
  });
  const counted = async (outcome: string) => {
    const metric = await metrics.getSingleMetric("inbox_events_total")?.get();
    return metric?.values.find((value) => value.labels.outcome === outcome)?.value ?? 0;
  };
  return { ...consumer, batches, counted };
}

async function effectsOf(orderIds: readonly string[]): Promise<readonly string[]> {
  const rows = await database.query<{ order_id: string }>(
    "SELECT order_id FROM effect WHERE order_id IN (?) ORDER BY number",
    [orderIds],
  );
  return rows.map((row) => row.order_id);
}

const idsOf = (records: readonly EventRecord[]) => records.map((it) => it.key);

test("events are handled in batches, and each has its effect once, even if it is delivered again", async () => {
  const topic = await createTestTopic();
  const group = newId();
  const records = Array.from({ length: 300 }, () => record());
  await produce(topic, records);
  const consumer = await consume(topic, { group });
  await eventually(async () => expect(await consumer.counted("handled")).toBe(300), 20_000);
  expect(consumer.isReady()).toBe(true);
  // The same records again, as a relay sends them if it could not mark them as published.
  await produce(topic, records);
  await eventually(async () => expect(await consumer.counted("duplicate")).toBe(300), 20_000);
  await consumer.close();
  expect([...(await effectsOf(idsOf(records)))].sort()).toEqual(idsOf(records).sort());
  expect(consumer.batches.length).toBeLessThan(100);

  // The offsets of what was handled are committed, so the next member of the group does not get it.
  const admin = await openAdmin(testKafka());
  const offsets = await admin.committedOffsets(group, topic);
  expect(offsets.reduce((sum, it) => sum + Math.max(0, Number(it.offset)), 0)).toBe(600);
  await admin.close();
});

test("records of types that are not handled, and records that are not events, are counted as skipped and not decoded", async () => {
  const topic = await createTestTopic(1);
  const foreign = { ...record(), value: new Uint8Array([0xff, 0xff, 0xff]) };
  const last = record();
  await produce(topic, [
    { ...foreign, headers: { ...foreign.headers, ce_type: "shop.shipping.v1.ParcelSent" } },
    { key: "x", value: new TextEncoder().encode("hello"), headers: {} },
    last,
  ]);
  const consumer = await consume(topic, { group: newId() });
  await eventually(async () => expect(await consumer.counted("handled")).toBe(1), 20_000);
  expect(await consumer.counted("skipped")).toBe(2);
  await consumer.close();
  expect(await effectsOf(idsOf([last]))).toEqual(idsOf([last]));
});

test("odd records of another client on every partition stop nothing: events before, between and after them are handled", async () => {
  const topic = await createTestTopic(3);
  const consumer = await consume(topic, { group: newId() });
  const events = Array.from({ length: 90 }, () => record());
  await produce(topic, events.slice(0, 30));
  const odd = [0, 1, 2].flatMap((partition) =>
    oddRecords("shop.order.v1.OrderPlaced", record()).map((it) => ({ ...it, partition })),
  );
  await produceRaw(testKafka(), topic, odd.slice(0, 24));
  await produce(topic, events.slice(30, 60));
  await produceRaw(testKafka(), topic, odd.slice(24));
  await produce(topic, events.slice(60));
  await eventually(async () => expect((await effectsOf(idsOf(events))).length).toBe(90), 20_000);
  // Of the 16 kinds, 5 have no type. The others are parked; some are duplicates by their id.
  await eventually(async () => {
    const counts = await Promise.all(["skipped", "parked", "duplicate"].map(consumer.counted));
    expect(counts.reduce((sum, it) => sum + it, 0)).toBe(odd.length);
    expect(await consumer.counted("skipped")).toBe(15);
  }, 20_000);
  expect(consumer.isReady()).toBe(true);
  await consumer.close();
});

test("while the database is away nothing is lost: the same batch is retried, in order", async () => {
  const topic = await createTestTopic(1);
  let refused = 0;
  const flaky: Database = {
    ...database,
    async transaction(work, options) {
      if (refused++ < 4) throw Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
      return await database.transaction(work, options);
    },
  };
  const records = Array.from({ length: 20 }, () => record());
  await produce(topic, records);
  const consumer = await consume(topic, { group: newId(), on: flaky });
  await eventually(async () => expect(await consumer.counted("handled")).toBe(20), 20_000);
  await consumer.close();
  expect(refused).toBeGreaterThan(4);
  expect(await effectsOf(idsOf(records))).toEqual(idsOf(records));
});

test("a row that stays locked holds up its own partition and no other, not even for records that come later", async () => {
  const partitions = 4;
  const topic = await createTestTopic(partitions);
  const onPartition = (partition: number): EventRecord => {
    const candidate = record();
    return partitionOf(candidate.key, partitions) === partition ? candidate : onPartition(partition);
  };
  const others = () => Array.from({ length: 30 }, (_, index) => onPartition(1 + (index % (partitions - 1))));
  const blocked = onPartition(0);
  // Another session has recorded the event and does not commit.
  const other = await createConnection({ uri: schema.url });
  await other.beginTransaction();
  await other.query(
    `INSERT INTO inventory_inbox_event
        (event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset, batch_id, outcome)
      VALUES (?, ?, 'x', 'x', CURRENT_TIMESTAMP(3), CURRENT_TIMESTAMP(3), 0, 0, 'x', 'HANDLED')`,
    [blocked.headers.ce_id, blocked.key],
  );
  const handledAll = async (records: readonly EventRecord[], withinMs: number) =>
    eventually(async () => expect((await effectsOf(idsOf(records))).length).toBe(records.length), withinMs);
  const first = others();
  await produce(topic, [blocked, ...first]);
  const consumer = await consume(topic, { group: newId() });
  try {
    // The first transaction is shared with the record that cannot be handled, and waits 3 s for the lock.
    await handledAll(first, 15_000);
    for (let round = 0; round < 3; round++) {
      const later = others();
      await produce(topic, later);
      await handledAll(later, 2_500);
    }
    expect(await effectsOf([blocked.key])).toEqual([]);
    other.destroy();
    await handledAll([blocked], 20_000);
  } finally {
    other.destroy();
    await consumer.close();
  }
}, 60_000);

test("a batch that is too slow for its time limit is handled in smaller ones, in order", async () => {
  const topic = await createTestTopic(1);
  const records = Array.from({ length: 64 }, () => record());
  await produce(topic, records);
  // The server goes on with a statement that was given up, and its transaction keeps its locks until then.
  const impatient = openDatabase({ url: schema.url, connectionsMax: 4, statementTimeoutMs: 400 });
  const consumer = await consume(topic, { group: newId(), on: impatient, eventSeconds: 0.02 });
  try {
    await eventually(async () => expect(await consumer.counted("handled")).toBe(64), 30_000);
  } finally {
    await consumer.close();
    await impatient.close();
  }
  expect(consumer.batches[0]).toBe(64);
  expect(await effectsOf(idsOf(records))).toEqual(idsOf(records));
}, 60_000);

test("a consumer closes in time although its batch cannot be handled yet", async () => {
  const topic = await createTestTopic(1);
  const attempted = Promise.withResolvers<void>();
  const dead: Database = {
    ...database,
    async transaction() {
      attempted.resolve();
      throw Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
    },
  };
  await produce(topic, [record()]);
  const consumer = await consume(topic, { group: newId(), on: dead });
  await attempted.promise;
  const startedMs = performance.now();
  await consumer.close();
  expect(performance.now() - startedMs).toBeLessThan(5_000);
});

test("two members of a group share the partitions, and one takes over when the other leaves", async () => {
  const topic = await createTestTopic(4);
  const group = newId();
  const [first, second] = [await consume(topic, { group }), await consume(topic, { group })];
  const records: EventRecord[] = [];
  await eventually(async () => {
    const more = Array.from({ length: 20 }, () => record());
    records.push(...more);
    await produce(topic, more);
    expect(await first.counted("handled")).toBeGreaterThan(0);
    expect(await second.counted("handled")).toBeGreaterThan(0);
  }, 30_000);
  await first.close();
  const lastRecords = Array.from({ length: 200 }, () => record());
  await produce(topic, lastRecords);
  await eventually(async () => {
    const ids = idsOf([...records, ...lastRecords]);
    expect([...(await effectsOf(ids))].sort()).toEqual(ids.sort());
  }, 30_000);
  await second.close();
});
