/** What other clients and a broker may put on a topic, as the consumer reads it from a real broker. */
import { afterEach, expect, test } from "bun:test";
import { silentLogger } from "../../services/kit/log.ts";
import { eventually } from "../../services/kit/testing.ts";
import { createTestTopic, keyOf, testKafka } from "../testing.ts";
import { openAdmin } from "./admin.ts";
import { decompressedBytesMax } from "./codecs.ts";
import { consumeTopic, type TopicConsumer, type TopicConsumerOptions, type TopicRecord } from "./consumer.ts";
import { deleteRecords, produceInTransaction, produceRaw } from "./testing.ts";

const kafka = testKafka();
let consumers: TopicConsumer[] = [];
afterEach(async () => {
  await Promise.all(consumers.map((consumer) => consumer.close()));
  consumers = [];
});

/** Consumes the topic, and keeps what it reads. */
async function consume(topic: string, options: Partial<TopicConsumerOptions> = {}) {
  const records: TopicRecord[] = [];
  const groupId = `test-${crypto.randomUUID()}`;
  const crashes: Error[] = [];
  const changes: string[] = [];
  const consumer = await consumeTopic({
    ...kafka,
    groupId,
    topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently: 3,
    batchSizeMax: 500,
    onBatch: async (batch) => void records.push(...batch),
    onUnreadable: (partition, unreadable) => void changes.push(`${partition} ${unreadable?.offset ?? "readable"}`),
    unreadableRetryMs: 100,
    onCrash: (error) => void crashes.push(error),
    log: silentLogger,
    ...options,
  });
  consumers.push(consumer);
  const keys = () => records.map(keyOf);
  const committed = async () => {
    const admin = await openAdmin(kafka);
    return await admin.committedOffsets(groupId, topic).finally(admin.close);
  };
  return { consumer, records, keys, crashes, changes, committed };
}

test("batches in all codecs of Kafka are read", async () => {
  for (const codec of ["gzip", "snappy", "lz4", "zstd"]) {
    // The broker compresses what it gets, as a Java client does.
    const topic = await createTestTopic(1, { "compression.type": codec });
    const keysSent = Array.from({ length: 200 }, (_, index) => `key-${index}`);
    await produceRaw(
      kafka,
      topic,
      keysSent.map((key) => ({ key, value: `${key} `.repeat(300), headers: { name: key, none: null } })),
    );
    const { records, keys, crashes } = await consume(topic);
    await eventually(() => expect([codec, records.length, ...crashes]).toEqual([codec, 200]), 10_000);
    expect(keys()).toEqual(keysSent);
    expect(String(records[7]?.value)).toBe("key-7 ".repeat(300));
    expect(records[7]?.headers).toEqual({ name: Buffer.from("key-7"), none: null });
  }
});

test("headers may have any name, any number of them, and null values, and a record any time", async () => {
  const topic = await createTestTopic(1, { "message.timestamp.after.max.ms": "9223372036854775807" });
  const names = ["constructor", "toString", "__proto__", "hasOwnProperty", ""];
  const many = Array.from({ length: 20_000 }, (_, index) => [`h${index}`, "v"] as const);
  await produceRaw(kafka, topic, [
    { key: "names", headers: Object.fromEntries(names.map((name) => [name, "text"])) },
    { key: "many", headers: Object.fromEntries(many) },
    { key: "null", headers: { none: null } },
    { timestamp: "9223372036854775" },
  ]);
  const { records } = await consume(topic);
  await eventually(() => expect(records.length).toBe(4), 10_000);
  for (const name of names)
    expect(Object.entries(records[0]?.headers ?? {})).toContainEqual([name, Buffer.from("text")]);
  expect(Object.keys(records[1]?.headers ?? {}).length).toBe(20_000);
  expect(records[2]?.headers).toEqual({ none: null });
  expect(records.map(({ publishedAt }) => Number.isNaN(publishedAt.getTime()))).toEqual([false, false, false, false]);
});

test("a partition that cannot be read is shown and waits, the others go on, and it goes on once its records are deleted", async () => {
  const topic = await createTestTopic(2);
  const bomb = { key: "bomb", value: Buffer.alloc(decompressedBytesMax), partition: 0 };
  await produceRaw(kafka, topic, [
    { key: "before", partition: 0 },
    { key: "other", partition: 1 },
  ]);
  await produceRaw(kafka, topic, [bomb], { gzip: true });
  await produceRaw(kafka, topic, [{ key: "behind", partition: 0 }]);
  const { consumer, keys, crashes, changes, committed } = await consume(topic);
  await eventually(() => expect(consumer.unreadable()).toMatchObject([{ partition: 0, offset: "1", endOffset: "3" }]));
  expect(String(consumer.unreadable()[0]?.error)).toContain(String(decompressedBytesMax));
  // It is tried again, and meanwhile the other partition is consumed.
  await produceRaw(kafka, topic, [{ key: "another", partition: 1 }]);
  await eventually(() => expect(keys().sort()).toEqual(["another", "before", "other"]));
  await eventually(() => expect(changes.length).toBeGreaterThan(2));
  expect(new Set(changes)).toEqual(new Set(["0 1"]));
  expect(consumer.isReady()).toBe(true);
  await eventually(async () =>
    expect((await committed()).map(({ offset }) => offset).sort((one, other) => Number(one) - Number(other))).toEqual([
      "1",
      "2",
    ]),
  );

  await deleteRecords(kafka, topic, 0, "2");
  await eventually(() => expect(keys()).toContain("behind"), 10_000);
  expect(consumer.unreadable()).toEqual([]);
  expect(changes.at(-1)).toBe("0 readable");
  expect(crashes).toEqual([]);
}, 60_000);

test("the markers of transactions are committed past, also where nothing else comes", async () => {
  const topic = await createTestTopic(3);
  await produceInTransaction(kafka, topic, [{ key: "committed", partition: 0 }], "commit");
  await produceInTransaction(kafka, topic, [{ key: "aborted", partition: 1 }], "abort");
  await produceRaw(kafka, topic, [{ key: "deferred", partition: 2 }]);
  await produceInTransaction(kafka, topic, [{ key: "aborted", partition: 2 }], "abort");
  const { keys, committed } = await consume(topic, {
    mayDefer: (record) => keyOf(record) === "deferred",
    deferMaxMs: 50,
  });
  await eventually(async () => {
    const offsets = (await committed()).map(({ partition, offset }) => `${partition} ${offset}`);
    expect(offsets.sort()).toEqual(["0 2", "1 2", "2 3"]);
  }, 10_000);
  expect(keys().sort()).toEqual(["committed", "deferred"]);
});

test("an error of JavaScript itself in a batch does not end the consumer: the records are delivered again", async () => {
  const topic = await createTestTopic(1);
  await produceRaw(kafka, topic, [{ key: "one" }, { key: "two" }]);
  let attempts = 0;
  const seen: string[] = [];
  const { crashes } = await consume(topic, {
    async onBatch(records) {
      if (++attempts <= 2) throw new TypeError("undefined is not an object");
      seen.push(...records.map(keyOf));
    },
  });
  await eventually(() => expect([seen, crashes]).toEqual([["one", "two"], []]), 10_000);
});
