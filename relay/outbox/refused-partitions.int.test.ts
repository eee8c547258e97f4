/**
 * Some partitions of a topic refuse records, as they do with several brokers. The broker of the tests has one disk, so a
 * wrapped producer refuses for it, the way kafkajs does: the records of the other partitions are on the topic, and the whole
 * send is rejected.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { type Database, insertRows } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import type { SqlValue } from "../../services/kit/statements.ts";
import { administer, createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { openAdmin } from "../kafka/admin.ts";
import { partitionOf } from "../kafka/partitioner.ts";
import { openProducer, type RecordProducer } from "../kafka/producer.ts";
import { createTestTopic, distinct, firstOccurrences, readTopic, testKafka } from "../testing.ts";
import { createRelayMetrics } from "./metrics.ts";
import { claimOwnership } from "./ownership.ts";
import { type RelaySource, type RelaySourceOptions, startRelaySource } from "./start-relay.ts";
import { openOutboxStore } from "./store.ts";

const table = "order_outbox_event";
const partitions = 12;
const keys = Array.from({ length: 120 }, (_, index) => `key-${index}`);
const keysOf = (isWanted: (partition: number) => boolean) =>
  keys.filter((key) => isWanted(partitionOf(key, partitions)));

let schema: TestSchema;
let database: Database;
let topic: string;
let refuses: (partition: number) => boolean;
/** The records for partitions that refuse, by send. */
let refusedSends: number[];
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open(4);
});
afterAll(() => schema.drop());
beforeEach(async () => {
  await administer(`TRUNCATE TABLE ${schema.name}.${table}`);
  topic = await createTestTopic(partitions);
  refuses = (partition) => partition === 3;
  refusedSends = [];
});
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics([topic]);
  await admin.close();
});

async function insert(ofKeys: readonly string[]): Promise<void> {
  const rows = ofKeys.map((key): SqlValue[] => [
    Bun.randomUUIDv7(),
    key,
    "shop.order.v1.OrderCompleted",
    JSON.stringify({ orderId: key }),
  ]);
  await insertRows(database, table, ["id", "aggregate_id", "type", "payload"], rows);
}

const times = (count: number, ofKeys: readonly string[]) => Array.from({ length: count }, () => ofKeys).flat();

/** @param refuse rejects the send of records that a partition refuses. */
function refusingProducer(refuse: () => Promise<never>) {
  return async (): Promise<RecordProducer> => {
    const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
    return {
      ...producer,
      partitionsOf: () => partitions,
      async send(to, records) {
        const accepted = records.filter(({ key }) => !refuses(partitionOf(key, partitions)));
        if (accepted.length > 0) await producer.send(to, accepted);
        if (accepted.length === records.length) return;
        refusedSends.push(records.length - accepted.length);
        await refuse();
      },
    };
  };
}

const answers = async () => {
  const message = "Messages are rejected since there are fewer in-sync replicas than required";
  throw Object.assign(new Error(message), { type: "NOT_ENOUGH_REPLICAS" });
};
const isSilent = async () => {
  await Bun.sleep(2_000);
  throw new Error("Sending took longer than 2000 ms.");
};

const claim = () => claimOwnership({ databaseUrl: schema.url, schema: schema.name, table, log: silentLogger });

function start(change: Partial<RelaySourceOptions> = {}): RelaySource {
  const relay = startRelaySource({
    name: "order",
    topic,
    ceSource: "/shop/order",
    encoding: "protobuf",
    registry: eventRegistry,
    store: openOutboxStore({ databaseUrl: schema.url, table }),
    // Only if the test brings none: a second claim would compete with it for the source.
    ownership: change.ownership ?? claim(),
    openProducer: refusingProducer(answers),
    log: silentLogger,
    metrics: createRelayMetrics(new Metrics()),
    ...change,
  });
  closers.push(() => relay.close());
  return relay;
}

/** The keys of the rows that are not published. */
async function pendingKeys(): Promise<readonly string[]> {
  const rows = await database.query<{ key: string }>(
    `SELECT DISTINCT aggregate_id AS \`key\` FROM ${table} WHERE status <> 'PUBLISHED'`,
  );
  return rows.map(({ key }) => key);
}

async function expectPending(expected: readonly string[], timeoutMs?: number): Promise<void> {
  await eventually(async () => expect((await pendingKeys()).toSorted()).toEqual(expected.toSorted()), timeoutMs);
}

async function expectNothingCounted(): Promise<void> {
  const counted = `SELECT id FROM ${table} WHERE retry_count > 0 OR status NOT IN ('PENDING', 'PUBLISHED')`;
  expect(await database.query(counted)).toEqual([]);
}

/** @param refuse see {@link refusingProducer}. */
async function expectNeighboursKeepTheirSpeed(refuse: () => Promise<never>): Promise<void> {
  await insert(times(5, keys));
  const relay = start({ openProducer: refusingProducer(refuse) });
  const refused = keysOf((partition) => refuses(partition));
  const others = keysOf((partition) => !refuses(partition));
  expect(refused.length).toBeGreaterThan(3);
  await expectPending(refused, 8_000);
  expect(relay.isHealthy()).toBe(false);

  const delaysMs: number[] = [];
  for (const key of others.slice(0, 20)) {
    // One of each: the rows of the refused partition come first in every read.
    await insert([refused[0] ?? "", key]);
    const insertedMs = performance.now();
    relay.hint();
    await expectPending(refused);
    delaysMs.push(performance.now() - insertedMs);
    // Time for probes.
    await Bun.sleep(50);
  }
  expect(Math.max(...delaysMs)).toBeLessThan(500);
  await expectNothingCounted();
  // The first send, each partition alone, and from then on one record at a time.
  expect(refusedSends.length).toBeGreaterThan(2);
  expect(refusedSends.slice(2).every((records) => records === 1)).toBe(true);

  refuses = () => false;
  await expectPending([], 8_000);
  await expectNothingCounted();
  expect(relay.isHealthy()).toBe(true);
  const total = 5 * keys.length + 40;
  const records = await readTopic(topic, distinct(total));
  expect(firstOccurrences(records).size).toBe(keys.length);
  // The other rows of the first page, and the refused rows of a send whose answer was lost: never more.
  expect(records.length - total).toBeLessThan(250);
}

test("while one of 12 partitions refuses, only its keys wait, nothing is counted, and the others keep their speed", async () => {
  await expectNeighboursKeepTheirSpeed(answers);
}, 30_000);

test("while one of 12 partitions does not answer, only its keys wait, nothing is counted, and the others keep their speed", async () => {
  await expectNeighboursKeepTheirSpeed(isSilent);
}, 60_000);

test("rows of refused partitions that come first do not hide the rows behind them", async () => {
  refuses = (partition) => partition < 4;
  const refused = keysOf((partition) => refuses(partition));
  await insert(times(20, refused));
  await insert(keys);
  start();
  await expectPending(refused);
  refuses = () => false;
  await expectPending([]);
  firstOccurrences(await readTopic(topic, distinct(20 * refused.length + keys.length)));
});

test("while every partition refuses, it is an outage: nothing is counted, and afterwards everything arrives in order", async () => {
  refuses = () => true;
  await insert(times(5, keys));
  const relay = start();
  await eventually(() => expect(refusedSends.length).toBeGreaterThan(30));
  expect(relay.isHealthy()).toBe(false);
  await expectNothingCounted();
  refuses = () => false;
  await expectPending([], 8_000);
  await expectNothingCounted();
  expect(firstOccurrences(await readTopic(topic, distinct(5 * keys.length))).size).toBe(keys.length);
});

test("a relay that lost its source during a send that failed sends nothing by partition", async () => {
  await insert(keys);
  const owned = claim();
  let isLost = false;
  const sent: string[] = [];
  const relay = start({
    ownership: { ...owned, isFresh: () => !isLost && owned.isFresh() },
    async openProducer() {
      const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
      return {
        ...producer,
        partitionsOf: () => partitions,
        async send(_, records) {
          sent.push(...records.map(({ key }) => key));
          isLost = true;
          await answers();
        },
      };
    },
  });
  await eventually(() => expect(isLost).toBe(true), 20_000);
  await relay.close();
  expect(sent.length).toBe(10);
  expect((await pendingKeys()).length).toBe(keys.length);
}, 60_000);
