import { expect, test } from "bun:test";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { consumeTopic } from "../../relay/kafka/consumer.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { deleteRecords } from "../../relay/kafka/testing.ts";
import { createTestTopic, testKafka } from "../../relay/testing.ts";
import { eventually } from "../kit/testing.ts";
import { createTopicProgress } from "./topic-progress.ts";

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

test("a group is caught up once it has handled what the topic held at the previous check, and not while its consumer is blocked", async () => {
  const topic = await createTestTopic(3);
  const groupId = crypto.randomUUID();
  let nowMs = 0;
  const progress = createTopicProgress({ kafka: testKafka(), topic, groupId, nowMs: () => nowMs });
  // The first check has nothing to compare with. A broker that has just started may still refuse the first request.
  expect(await eventually(() => progress.checkCaughtUp())).toBe(false);
  // The topic is empty, and the group has committed nothing.
  expect(await progress.checkCaughtUp()).toBe(true);

  await produce(topic, 30);
  // At the previous check the topic was still empty.
  expect(await progress.checkCaughtUp()).toBe(true);
  expect(await progress.checkCaughtUp()).toBe(false);

  const blocked = Promise.withResolvers<void>();
  const consumer = consumeTopic({
    ...testKafka(),
    groupId,
    topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently: 3,
    batchSizeMax: 100,
    onBatch: () => blocked.promise,
    onCrash: blocked.reject,
  });
  await eventually(() => expect(consumer.isReady()).toBe(true));
  expect(await progress.checkCaughtUp()).toBe(false);
  blocked.resolve();
  await eventually(async () => expect(await progress.checkCaughtUp()).toBe(true));

  // The process was suspended: the end offsets that it read before are outdated.
  nowMs += 5_001;
  expect(await progress.checkCaughtUp()).toBe(false);
  nowMs += 5_000;
  expect(await progress.checkCaughtUp()).toBe(true);
  await consumer.close();
  await progress.close();
});

test("a group whose next records have expired is where the partition begins", async () => {
  const topic = await createTestTopic(1);
  const groupId = crypto.randomUUID();
  await produce(topic, 10);
  const handled = Promise.withResolvers<void>();
  const consumer = await consumeTopic({
    ...testKafka(),
    groupId,
    topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently: 1,
    batchSizeMax: 100,
    onBatch: async () => handled.resolve(),
    onCrash: handled.reject,
  });
  await handled.promise;
  await consumer.close();
  await produce(topic, 5);
  const progress = createTopicProgress({ kafka: testKafka(), topic, groupId });
  await progress.checkCaughtUp();
  expect(await progress.checkCaughtUp()).toBe(false);

  await deleteRecords(testKafka(), topic, 0, "15");
  const admin = await openAdmin(testKafka());
  expect(await admin.committedOffsets(groupId, topic)).toMatchObject([{ partition: 0, offset: "10" }]);
  await admin.close();
  await eventually(async () => expect(await progress.checkCaughtUp()).toBe(true));
  await progress.close();
});
