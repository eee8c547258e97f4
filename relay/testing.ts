/**
 * Helpers for integration tests: topics, records as a broker delivers them, events as the inbox passes them to a handler,
 * and the relay as a process.
 */
import { join } from "node:path";
import type { Message } from "@bufbuild/protobuf";
import type { EventHeaders, NewEvent } from "../proto/envelope.ts";
import { toOutboxRow, toRecord } from "../proto/envelope.ts";
import { eventRegistry } from "../proto/event-table.ts";
import { environment } from "../services/kit/config.ts";
import type { Transaction } from "../services/kit/database.ts";
import { withDeadline } from "../services/kit/deadline.ts";
import { silentLogger } from "../services/kit/log.ts";
import { freePort, testServers } from "../services/kit/testing.ts";
import type { BatchHandler, BatchResult, ReceivedEvent } from "./inbox/handler.ts";
import { openAdmin } from "./kafka/admin.ts";
import type { KafkaOptions } from "./kafka/client.ts";
import { consumeTopic, type TopicRecord } from "./kafka/consumer.ts";
import type { Outbox } from "./outbox/append.ts";

/** Options to reach the broker of the tests. */
export function testKafka(): KafkaOptions {
  return { brokers: testServers().kafkaBrokers, clientId: "test", log: silentLogger };
}

/** Creates a topic for one test. */
export async function createTestTopic(
  partitions = 3,
  config: Readonly<Record<string, string>> = {},
  kafka = testKafka(),
): Promise<string> {
  const topic = `test.${crypto.randomUUID()}`;
  const admin = await openAdmin(kafka);
  await admin.createTopics([{ topic, partitions, replication: 1, config }]).finally(admin.close);
  return topic;
}

/** An event of the saga as the inbox passes it to a handler. */
export function receivedEvent<M extends Message & { readonly orderId: string }>(
  message: M,
  headers: EventHeaders = { correlationId: "request-1" },
): ReceivedEvent<M> {
  const envelope = {
    id: Bun.randomUUIDv7(),
    type: message.$typeName,
    ceSource: "/shop/order",
    aggregateId: message.orderId,
    occurredAt: new Date(),
    sequence: "1",
    headers,
    payload: new Uint8Array(),
  };
  return { message, envelope };
}

/** Handles a batch like the inbox does, in the caller's transaction, but writes no inbox rows. */
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

/**
 * Reads a topic from its start until `until` returns true for the records so far. Returns all of them, in order.
 * @throws Error after `timeoutMs`.
 */
export async function readTopic(
  topic: string,
  until: (records: readonly TopicRecord[]) => boolean,
  timeoutMs = 20_000,
  kafka = testKafka(),
): Promise<readonly TopicRecord[]> {
  const records: TopicRecord[] = [];
  const done = Promise.withResolvers<void>();
  const consumer = consumeTopic({
    ...kafka,
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
    const timeout = () =>
      new Error(`The condition on ${topic} is not met by the ${records.length} records read within ${timeoutMs} ms.`);
    await withDeadline(done.promise, timeoutMs, timeout);
    return records;
  } finally {
    await consumer.close();
  }
}

/** An event's record, as a consumer receives it. */
export function asTopicRecord(
  event: NewEvent,
  options: { readonly ceSource: string; readonly seq?: number; readonly partition?: number; readonly offset?: number },
): TopicRecord {
  const row = { ...toOutboxRow(event, eventRegistry), occurredAt: new Date(), seq: String(options.seq ?? 1) };
  const record = toRecord(row, { ceSource: options.ceSource, encoding: "protobuf", registry: eventRegistry });
  return {
    key: Buffer.from(record.key),
    value: record.value,
    headers: Object.fromEntries(Object.entries(record.headers).map(([name, value]) => [name, Buffer.from(value)])),
    partition: options.partition ?? 0,
    offset: String(options.offset ?? 0),
    publishedAt: new Date(),
  };
}

export const idOf = (record: TopicRecord) => String(record.headers?.ce_id);
export const keyOf = (record: TopicRecord) => new TextDecoder().decode(record.key ?? undefined);
export const sequenceOf = (record: TopicRecord) => Number(record.headers?.ce_sequence);
/** For {@link readTopic}: stops when this many different events have been read. */
export const distinct = (count: number) => (records: readonly TopicRecord[]) =>
  new Set(records.map(idOf)).size >= count;

/**
 * The first occurrence of every event, by key.
 * @throws Error naming the key if they are not in the order of `ce_sequence`.
 */
export function firstOccurrences(records: readonly TopicRecord[]): ReadonlyMap<string, readonly TopicRecord[]> {
  const first = new Map(records.toReversed().map((record) => [idOf(record), record]));
  const byKey = Map.groupBy(
    records.filter((record) => first.get(idOf(record)) === record),
    keyOf,
  );
  for (const [key, occurrences] of byKey) {
    const sequences = occurrences.map(sequenceOf);
    const wrong = sequences.findIndex((sequence, index) => index > 0 && sequence <= (sequences[index - 1] ?? 0));
    if (wrong > 0) throw new Error(`${key}: ${sequences[wrong]} comes after ${sequences[wrong - 1]}.`);
  }
  return byKey;
}

/** A relay that runs as a process, as in production. The test that starts it has to stop it. */
export interface RelayProcess {
  readonly child: Bun.Subprocess<"ignore", "pipe" | "ignore", "pipe" | "inherit">;
  /** The address of `/livez`, `/readyz` and `/metrics`. */
  readonly health: string;
}

/** Starts `relay/main.ts`. `sources` becomes `RELAY_SOURCES`. With `isPiped` the caller reads its output. */
export async function startRelayProcess(options: {
  readonly sources: unknown;
  readonly env?: Readonly<Record<string, string>>;
  readonly kafka?: KafkaOptions;
  readonly isPiped?: boolean;
}): Promise<RelayProcess> {
  const { brokers } = options.kafka ?? testKafka();
  const healthPort = await freePort();
  const child = Bun.spawn([process.execPath, "relay/main.ts"], {
    cwd: join(import.meta.dir, ".."),
    env: {
      ...environment(),
      KAFKA_BROKERS: brokers.map(({ host, port }) => `${host}:${port}`).join(","),
      HEALTH_PORT: String(healthPort),
      RELAY_HINT_PORT: "0",
      RELAY_SOURCES: JSON.stringify(options.sources),
      ...options.env,
    },
    stdin: "ignore",
    stdout: options.isPiped ? "pipe" : "ignore",
    stderr: options.isPiped ? "pipe" : "inherit",
  });
  return { child, health: `http://127.0.0.1:${healthPort}` };
}
