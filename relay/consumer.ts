/**
 * The inbox consumer: a batch of records from one partition is one local transaction, with a number of statements that
 * does not grow with the batch. An event has its effect once, however often it is delivered.
 */
import type { Message, Registry } from "@bufbuild/protobuf";
import { Counter, Histogram, type Registry as Metrics } from "prom-client";
import {
  decodePayload,
  fromRecord,
  type NewEvent,
  type ReceivedEnvelope,
  typeOfRecord,
  UndecodableRecordError,
} from "../proto/envelope.ts";
import { fullJitterMs, sleep } from "../services/kit/backoff.ts";
import type { Database, Transaction } from "../services/kit/database.ts";
import type { Logger } from "../services/kit/log.ts";
import type { HintSender } from "./hint.ts";
import { consumeTopic, type KafkaOptions, type TopicConsumer, type TopicRecord } from "./kafka.ts";
import type { Outbox } from "./outbox.ts";
import { inboxTableName } from "./tables.ts";

/** An event that this service handles, decoded. */
export interface ReceivedEvent<M extends Message = Message> {
  readonly envelope: ReceivedEnvelope;
  readonly message: M;
}

/** What handling a batch came to. */
export interface BatchResult {
  /** Appended to the outbox in this order, in the same transaction. */
  readonly publish: readonly NewEvent[];
  /** Ids of the events that changed nothing: late, out of order, or of no concern any more. */
  readonly ignored: readonly string[];
}

/**
 * Loads what the events concern with locked reads in a fixed order, decides each in turn on state that evolves in
 * memory, and writes what changed: each in a fixed number of statements. `events` are in topic order, none was handled
 * before. `now` is the database's clock.
 */
export type BatchHandler<M extends Message> = (
  transaction: Transaction,
  events: readonly ReceivedEvent<M>[],
  now: Date,
) => Promise<BatchResult>;

export interface InboxOptions<M extends Message> {
  /** Names the inbox table, and the consumer group. */
  readonly service: string;
  readonly database: Database;
  /** Decodes the handled types. */
  readonly registry: Registry;
  /** The event types to handle. Others are skipped undecoded and counted, so that a new service publishes freely. */
  readonly handles: ReadonlySet<string>;
  /** Which events get an inbox row: those handled, or every event of the topic (the service reads a timeline there). */
  readonly records: "handled" | "all";
  readonly handle: BatchHandler<M>;
  readonly outbox: Outbox;
  readonly hints: HintSender;
  readonly newId: () => string;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** After the commit, with the events that were handled in it. Must not throw. */
  readonly onCommitted?: (events: readonly ReceivedEvent<M>[]) => void;
}

/** Handles records of one partition in one transaction. Throws when nothing was committed, or nobody knows. */
export type Inbox = (records: readonly TopicRecord[]) => Promise<void>;

/** The inbox of one service, without the broker. */
export function createInbox<M extends Message>(options: InboxOptions<M>): Inbox {
  const { service, database, metrics } = options;
  const table = inboxTableName(service);
  const counted = new Counter({
    name: "inbox_events_total",
    help: "Records by what became of them: handled, ignored, duplicate, skipped (a type that is not handled here).",
    labelNames: ["outcome"],
    registers: [metrics],
  });
  const retries = new Counter({
    name: "inbox_transaction_retries_total",
    help: "Transactions done again after a deadlock or a lock wait.",
    registers: [metrics],
  });
  const duration = new Histogram({
    name: "inbox_batch_seconds",
    help: "From a batch's first statement to its commit.",
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers: [metrics],
  });

  return async (records) => {
    const startedMs = performance.now();
    const { entries, skipped } = read(records, options);
    let summary = { handled: 0, ignored: 0, duplicates: 0, published: 0 };
    let handled: readonly ReceivedEvent<M>[] = [];
    if (entries.size > 0) {
      await database.transaction(
        async (transaction) => {
          // A batch id of its own for every try: after a lost COMMIT, the rows of the first try are not ours.
          const batchId = options.newId();
          const fresh = await recordFresh(transaction, table, batchId, [...entries.values()]);
          handled = fresh.entries.flatMap(({ event }) => (event === undefined ? [] : [event]));
          const result: BatchResult =
            handled.length === 0 ? { publish: [], ignored: [] } : await options.handle(transaction, handled, fresh.now);
          if (result.ignored.length > 0) {
            await transaction.execute(`UPDATE ${table} SET outcome = 'IGNORED' WHERE event_id IN (?)`, [
              result.ignored,
            ]);
          }
          await options.outbox.append(transaction, result.publish);
          summary = {
            handled: handled.length - result.ignored.length,
            ignored: fresh.entries.length - handled.length + result.ignored.length,
            duplicates: records.length - skipped - fresh.entries.length,
            published: result.publish.length,
          };
        },
        { onRetry: () => retries.inc() },
      );
      if (summary.published > 0) options.hints.send();
      options.onCommitted?.(handled);
    }
    const seconds = (performance.now() - startedMs) / 1_000;
    duration.observe(seconds);
    counted.inc({ outcome: "handled" }, summary.handled);
    counted.inc({ outcome: "ignored" }, summary.ignored);
    counted.inc({ outcome: "duplicate" }, summary.duplicates);
    counted.inc({ outcome: "skipped" }, skipped);
    options.log.info(
      { partition: records[0]?.partition, records: records.length, skipped, ...summary, seconds },
      "batch",
    );
  };
}

interface Entry<M extends Message> {
  readonly record: TopicRecord;
  readonly envelope: ReceivedEnvelope;
  /** Undefined for a type that is recorded and not handled. */
  readonly event: ReceivedEvent<M> | undefined;
}

/** The records that get an inbox row, by event id (a batch may hold one twice), and how many do not. */
function read<M extends Message>(records: readonly TopicRecord[], options: InboxOptions<M>) {
  const entries = new Map<string, Entry<M>>();
  let skipped = 0;
  for (const record of records) {
    const type = typeOfRecord(record);
    const handled = type !== undefined && options.handles.has(type);
    if (!handled && (type === undefined || options.records === "handled")) {
      skipped++;
      continue;
    }
    let envelope: ReceivedEnvelope;
    try {
      envelope = fromRecord(record);
    } catch (error) {
      // Not handled here, and not even an event: there is nothing to record.
      if (!handled && error instanceof UndecodableRecordError) {
        skipped++;
        continue;
      }
      throw error;
    }
    if (entries.has(envelope.id)) continue;
    const event = handled ? { envelope, message: decodePayload(envelope, options.registry) as M } : undefined;
    entries.set(envelope.id, { record, envelope, event });
  }
  return { entries, skipped };
}

const inboxColumns =
  "event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset, batch_id, outcome";

/** Inserts the inbox rows and tells which were not there before, with the database's time. */
async function recordFresh<M extends Message>(
  transaction: Transaction,
  table: string,
  batchId: string,
  entries: readonly Entry<M>[],
): Promise<{ entries: readonly Entry<M>[]; now: Date }> {
  const rows = entries.map(({ record, envelope, event }) => [
    envelope.id,
    envelope.aggregateId,
    envelope.type,
    envelope.source,
    envelope.occurredAt,
    record.publishedAt,
    record.partition,
    record.offset,
    batchId,
    event === undefined ? "IGNORED" : "HANDLED",
  ]);
  // Not INSERT IGNORE, which would also hide a value that is cut or out of range.
  await transaction.execute(
    `INSERT INTO ${table} (${inboxColumns}) VALUES ? ON DUPLICATE KEY UPDATE event_id = ${table}.event_id`,
    [rows],
  );
  const found = await transaction.query<{ event_id: string; now: Date }>(
    `SELECT event_id, CURRENT_TIMESTAMP(3) AS now FROM ${table} WHERE event_id IN (?) AND batch_id = ?`,
    [entries.map(({ envelope }) => envelope.id), batchId],
  );
  // Without a fresh row nothing is handled, and nobody asks for the time.
  const ours = new Set(found.map((row) => row.event_id));
  return { entries: entries.filter(({ envelope }) => ours.has(envelope.id)), now: found[0]?.now ?? new Date(0) };
}

/**
 * Joins the service's consumer group and handles every batch through `inbox`, until closed. Whatever fails is an outage
 * of this consumer: it backs off and tries the same batch again, and loses nothing.
 */
export async function startConsumer(options: {
  readonly service: string;
  readonly topic: string;
  readonly kafka: KafkaOptions;
  readonly inbox: Inbox;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** kafkajs gave up: end the process. */
  readonly onCrash: (error: Error) => void;
  /** Partitions whose batches are handled side by side; one database connection each. Default 4. */
  readonly partitionsConcurrently?: number;
  /** Default 500. */
  readonly batchSizeMax?: number;
}): Promise<TopicConsumer> {
  const failures = new Counter({
    name: "inbox_batch_failures_total",
    help: "Batches that failed and were tried again.",
    registers: [options.metrics],
  });
  return await consumeTopic({
    ...options.kafka,
    groupId: options.service,
    topic: options.topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently: options.partitionsConcurrently ?? 4,
    batchSizeMax: options.batchSizeMax ?? 500,
    onCrash: options.onCrash,
    async onBatch(records, signal) {
      for (let attempt = 0; ; attempt++) {
        try {
          return await options.inbox(records);
        } catch (error) {
          failures.inc();
          options.log.error(
            { err: error, partition: records[0]?.partition, offset: records[0]?.offset },
            "batch failed",
          );
          if (signal.aborted) throw error;
          await sleep(fullJitterMs(attempt, { baseMs: 50, maxMs: 2_000 }), signal);
          if (signal.aborted) throw error;
        }
      }
    },
  });
}
