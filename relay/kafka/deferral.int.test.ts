import { afterEach, beforeEach, expect, test } from "bun:test";
import { eventually } from "../../services/kit/testing.ts";
import { createTestTopic, keyOf, testKafka } from "../testing.ts";
import { openAdmin } from "./admin.ts";
import { consumeTopic, type TopicConsumer, type TopicConsumerOptions } from "./consumer.ts";
import { partitionOf } from "./partitioner.ts";
import { openProducer, type RecordProducer } from "./producer.ts";

const partitions = 2;
let topic: string;
let group: string;
let producer: RecordProducer;
let consumers: TopicConsumer[] = [];
/** The keys that were handled, by batch. */
let batches: string[][];
/** The errors of the next batches. */
let failures: Error[];

beforeEach(async () => {
  topic = await createTestTopic(partitions);
  group = `test-${crypto.randomUUID()}`;
  producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
  batches = [];
  failures = [];
});
afterEach(async () => {
  await Promise.all([producer.close(), ...consumers.map((consumer) => consumer.close())]);
  consumers = [];
});

/** Adds a member to the group. */
function join(
  options: Pick<TopicConsumerOptions, "onBatch"> & Partial<Pick<TopicConsumerOptions, "deferMaxMs" | "onAssigned">>,
) {
  const consumer = consumeTopic({
    ...testKafka(),
    groupId: group,
    topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently: partitions,
    batchSizeMax: 3,
    mayDefer: (record) => keyOf(record).startsWith("deferred"),
    onCrash: (error) => {
      throw error;
    },
    ...options,
  });
  consumers.push(consumer);
  return consumer;
}

const consume = (deferMaxMs: number) =>
  join({
    deferMaxMs,
    async onBatch(records) {
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      batches.push(records.map(keyOf));
    },
  });

/** A key that the partitioner puts on `partition`. */
const keyOn = (partition: number, name: string) => {
  for (let n = 0; ; n++) if (partitionOf(`${name}-${n}`, partitions) === partition) return `${name}-${n}`;
};
const [deferred1, deferred2, deferred3, deferred4, urgent] = [
  "deferred1",
  "deferred2",
  "deferred3",
  "deferred4",
  "urgent",
].map((name) => keyOn(0, name)) as [string, string, string, string, string];
const marker = keyOn(1, "marker");
const produce = async (...keys: readonly string[]) => {
  for (const key of keys) await producer.send(topic, [{ key, value: new Uint8Array([1]), headers: {} }]);
};
const committed = async (partition: number) => {
  const admin = await openAdmin(testKafka());
  const offsets = await admin.committedOffsets(group, topic).finally(admin.close);
  return Number(offsets.find((it) => it.partition === partition)?.offset);
};

test("deferred records are handled with the next urgent record of their partition, in order", async () => {
  consume(60_000);
  // The marker is produced last and handled alone: the other two were fetched before it and deferred.
  await produce(deferred1, deferred2, marker);
  await eventually(() => expect(batches).toEqual([[marker]]), 20_000);
  await eventually(async () => expect(await committed(1)).toBe(1));
  expect(await committed(0)).toBeLessThan(1);
  await produce(urgent);
  await eventually(() => expect(batches).toEqual([[marker], [deferred1, deferred2, urgent]]));
  await eventually(async () => expect(await committed(0)).toBe(3));
});

test("deferred records are handled after a while if no urgent record comes", async () => {
  consume(50);
  await produce(deferred1);
  await eventually(() => expect(batches).toEqual([[deferred1]]), 20_000);
  await eventually(async () => expect(await committed(0)).toBe(1));
});

test("deferred records whose handling fails are handled at the next attempt", async () => {
  failures = [new Error("the database is away")];
  consume(50);
  await produce(deferred1);
  await eventually(() => expect(batches).toEqual([[deferred1]]), 20_000);
  expect(failures).toEqual([]);
  await eventually(async () => expect(await committed(0)).toBe(1));
});

test("deferred records are handled once there are more than fit a batch", async () => {
  consume(60_000);
  await produce(deferred1, deferred2, deferred3);
  await produce(deferred4);
  await eventually(() => expect(batches).toEqual([[deferred1, deferred2, deferred3], [deferred4]]), 20_000);
});

test("deferred records that were not handled are delivered to the next member, and are handled again after a failure", async () => {
  const consumer = consume(60_000);
  await produce(deferred1, marker);
  await eventually(() => expect(batches).toEqual([[marker]]), 20_000);
  await consumer.close();
  consumers = [];
  batches = [];
  consume(60_000);
  await produce(marker);
  await eventually(() => expect(batches).toEqual([[marker]]), 20_000);
  // After a failure kafkajs continues after the offset that was resolved last, which is that of the deferred record.
  failures = [new Error("the database is away")];
  await produce(urgent);
  await eventually(() => expect(batches).toEqual([[marker], [deferred1, urgent]]), 20_000);
  expect(failures).toEqual([]);
  await eventually(async () => expect(await committed(0)).toBe(2));
});

test("a rebalance does not wait for deferred records, and they stay in order", async () => {
  const order: string[] = [];
  const started = Promise.withResolvers<void>();
  const member = (name: string, isBlocked: boolean) =>
    join({
      deferMaxMs: 10,
      onAssigned: () => order.push(`${name} joined`),
      async onBatch(records, signal) {
        if (isBlocked) {
          started.resolve();
          // Like the inbox, which retries until the signal is aborted.
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          order.push(`${name} stopped`);
          isBlocked = false;
          throw signal.reason;
        }
        batches.push(records.map(keyOf));
      },
    });
  member("first", true);
  await produce(deferred1);
  await started.promise;
  // Queued behind the deferred record.
  await produce(urgent);
  member("second", false);
  await eventually(() => expect(order).toContain("second joined"), 20_000);
  expect(order.slice(0, 3)).toEqual(["first joined", "first stopped", expect.stringMatching(/joined$/)]);
  await eventually(() => expect([...new Set(batches.flat())]).toEqual([deferred1, urgent]), 20_000);
  await eventually(async () => expect(await committed(0)).toBe(2));
});
