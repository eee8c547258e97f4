import { expect, test } from "bun:test";
import { consumeTopic } from "../../relay/kafka/consumer.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { createTestTopic, testKafka } from "../../relay/testing.ts";
import { eventually } from "../kit/testing.ts";
import { createCaughtUp } from "./deadline-sweep.ts";

const produce = async (topic: string, count: number) => {
  const producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
  const records = Array.from({ length: count }, (_, index) => ({
    key: `key-${index}`,
    value: new Uint8Array([1]),
    headers: {},
  }));
  await producer.send(topic, records);
  await producer.close();
};

test("a group is caught up once it has handled what was there at the check before, and not while it is held up", async () => {
  const topic = await createTestTopic(3);
  const groupId = crypto.randomUUID();
  let nowMs = 0;
  const caughtUp = createCaughtUp({ kafka: testKafka(), topic, groupId, nowMs: () => nowMs });
  // Nothing was seen before the first check.
  expect(await caughtUp.check()).toBe(false);
  // An empty topic, and a group that has committed nothing.
  expect(await caughtUp.check()).toBe(true);

  await produce(topic, 30);
  // At the check before there was nothing yet.
  expect(await caughtUp.check()).toBe(true);
  expect(await caughtUp.check()).toBe(false);

  const held = Promise.withResolvers<void>();
  const consumer = await consumeTopic({
    ...testKafka(),
    groupId,
    topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently: 3,
    batchSizeMax: 100,
    onBatch: () => held.promise,
    onCrash: held.reject,
  });
  await eventually(() => expect(consumer.isReady()).toBe(true));
  expect(await caughtUp.check()).toBe(false);
  held.resolve();
  await eventually(async () => expect(await caughtUp.check()).toBe(true));

  // A process that stood still: what it saw of the topic before says nothing about now.
  nowMs += 5_001;
  expect(await caughtUp.check()).toBe(false);
  nowMs += 5_000;
  expect(await caughtUp.check()).toBe(true);
  await consumer.close();
  await caughtUp.close();
});
