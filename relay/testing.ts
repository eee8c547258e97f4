/** For integration tests: topics of their own, and records as the broker would deliver them. */
import type { Message } from "@bufbuild/protobuf";
import type { NewEvent } from "../proto/envelope.ts";
import { toOutboxRow, toRecord } from "../proto/envelope.ts";
import { eventRegistry } from "../proto/event-table.ts";
import type { Transaction } from "../services/kit/database.ts";
import { silentLogger } from "../services/kit/log.ts";
import { testServers } from "../services/kit/testing.ts";
import type { BatchHandler, BatchResult, ReceivedEvent } from "./consumer.ts";
import { consumeTopic, type KafkaOptions, openAdmin, type TopicRecord } from "./kafka.ts";
import type { Outbox } from "./outbox.ts";

/** How to reach the tests' broker. */
export function testKafka(): KafkaOptions {
  return { brokers: testServers().kafkaBrokers, clientId: "test", log: silentLogger };
}

/** Creates a topic that nobody else uses. */
export async function createTestTopic(partitions = 3, config: Readonly<Record<string, string>> = {}): Promise<string> {
  const topic = `test.${crypto.randomUUID()}`;
  const admin = await openAdmin(testKafka());
  await admin.createTopics([{ topic, partitions, replication: 1, config }]);
  await admin.close();
  return topic;
}

/** Carries a batch out as the inbox would, in the caller's transaction, without the inbox's own rows. */
export async function handleBatch<M extends Message>(
  transaction: Transaction,
  handle: BatchHandler<M>,
  outbox: Outbox,
  events: readonly ReceivedEvent<M>[],
): Promise<BatchResult> {
  const result = await handle(transaction, events);
  await transaction.pipeline([...result.writes, ...outbox.statements(result.publish)]);
  return result;
}

/** Reads a topic from its start until `until` says that it has seen enough, and returns all that was read, in order. */
export async function readTopic(
  topic: string,
  until: (records: readonly TopicRecord[]) => boolean,
  timeoutMs = 20_000,
): Promise<readonly TopicRecord[]> {
  const records: TopicRecord[] = [];
  const done = Promise.withResolvers<void>();
  const timer = setTimeout(
    () => done.reject(new Error(`${records.length} records were not what was waited for within ${timeoutMs} ms.`)),
    timeoutMs,
  );
  const consumer = await consumeTopic({
    ...testKafka(),
    groupId: `test-${crypto.randomUUID()}`,
    topic,
    from: "earliest",
    commitOffsets: false,
    partitionsConcurrently: 1,
    batchSizeMax: 1_000,
    async onBatch(batch) {
      records.push(...batch);
      if (until(records)) done.resolve();
    },
    onCrash: done.reject,
  });
  try {
    await done.promise;
    return records;
  } finally {
    clearTimeout(timer);
    await consumer.close();
  }
}

/** The record that the relay would make of an event of the shop's. */
export function asTopicRecord(
  event: NewEvent,
  options: { readonly source: string; readonly seq?: number; readonly partition?: number; readonly offset?: number },
): TopicRecord {
  const row = { ...toOutboxRow(event, eventRegistry), occurredAt: new Date(), seq: String(options.seq ?? 1) };
  const record = toRecord(row, { source: options.source, encoding: "protobuf", registry: eventRegistry });
  return {
    key: Buffer.from(record.key),
    value: record.value,
    headers: Object.fromEntries(Object.entries(record.headers).map(([name, value]) => [name, Buffer.from(value)])),
    partition: options.partition ?? 0,
    offset: String(options.offset ?? 0),
    publishedAt: new Date(),
  };
}
