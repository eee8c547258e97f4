/**
 * Consumes a topic as a member of a group, with what kafkajs lacks: heartbeats during a long batch, and a signal when
 * the partition may belong to another member.
 */
import type { Batch, Consumer, EachBatchHandler, KafkaMessage } from "kafkajs";
import type { ConsumedRecord } from "../../proto/envelope.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { endsWithin } from "../../services/kit/deadline.ts";
import { describeError } from "../../services/kit/errors.ts";
import { linkSignals } from "../../services/kit/linked-signal.ts";
import type { Logger } from "../../services/kit/log.ts";
import { Assignment } from "./assignment.ts";
import { type KafkaOptions, kafkaClient } from "./client.ts";
import { Deferral, type PartitionBatch } from "./deferral.ts";
import { HandledOffsets } from "./offsets.ts";
import { PartitionQueue } from "./partition-queue.ts";
import { type UnreadableBatch, UnreadablePartitions } from "./unreadable.ts";

/** A record that was consumed, with its place on the topic. */
export interface TopicRecord extends ConsumedRecord {
  readonly partition: number;
  /** Decimal. */
  readonly offset: string;
  /** When the record was produced, as far as a Date can say: producers may claim any time. */
  readonly publishedAt: Date;
}

/** A consumer of one topic in a group. */
export interface TopicConsumer {
  /** True while it is in its group and has heard from the broker within the last seconds. */
  isReady(): boolean;
  /** Where partitions of this member cannot be read. They wait, and are read again every few seconds; the others go on. */
  unreadable(): readonly UnreadableBatch[];
  /** Waits for the batches in flight (up to 3 s), commits their offsets and leaves the group. */
  close(): Promise<void>;
}

export interface TopicConsumerOptions extends KafkaOptions {
  readonly groupId: string;
  readonly topic: string;
  /** Where a group starts that has no committed offsets. */
  readonly from: "earliest" | "latest";
  /**
   * How long the broker may wait for more records before it answers a fetch. Default: it answers as soon as it has one.
   */
  readonly fetchWaitMs?: number;
  /** Whether the group's offsets are committed, soon after each batch. */
  readonly commitOffsets: boolean;
  readonly partitionsConcurrently: number;
  readonly batchSizeMax: number;
  /**
   * Handles records of one partition, in order. If it throws, the records are delivered again, perhaps with some that were
   * handled before; deferred records are not delivered again, but handled again from memory. `signal` is aborted when the
   * partition may belong to another member, or the consumer closes: then stop waiting and throw. `endOffset` (decimal) is
   * the offset of the partition's next record, as of the fetch.
   */
  readonly onBatch: (records: readonly TopicRecord[], signal: AbortSignal, endOffset: string) => Promise<void>;
  /** All that is before `nextOffset` (decimal) is handled, markers of transactions included. */
  readonly onHandled?: (partition: number, nextOffset: string) => void;
  /**
   * Whether a record may be deferred: it is then handled together with the next record of its partition that must not be
   * deferred, or after `deferMaxMs`. Its offset is committed when it is handled. Default: no record is deferred.
   */
  readonly mayDefer?: (record: TopicRecord) => boolean;
  /** Default 0. */
  readonly deferMaxMs?: number;
  /**
   * The client fetches again only when the records of all partitions are handled. A partition that takes longer than this
   * is paused instead, and the others go on. Default: never.
   */
  readonly stepAsideAfterMs?: number;
  /** Called after each join. */
  readonly onAssigned?: () => void;
  /** A partition has become unreadable, or, with undefined, is no longer. */
  readonly onUnreadable?: (partition: number, unreadable: UnreadableBatch | undefined) => void;
  /** How long a partition that cannot be read waits until it is read again. Default 5 s. */
  readonly unreadableRetryMs?: number;
  /** The consumer has stopped for good. The process should exit and be restarted. */
  readonly onCrash: (error: Error) => void;
}

/** Several times the interval at which an idle consumer hears from its broker. */
const silenceMaxMs = 5_000;
const heartbeatDuringBatchMs = 1_000;
const fetchBytesMin = 100_000;
const connectRetryMs = 500;
const defaultUnreadableRetryMs = 5_000;
/** How long close() waits for the consumer to finish starting. */
const startTimeoutMs = 1_000;
/** How long close() waits for the batches in flight. */
const batchTimeoutMs = 3_000;

/** Starts a consumer. It joins its group in the background, as soon as a broker answers. */
export function consumeTopic(options: TopicConsumerOptions): TopicConsumer {
  const { log, batchSizeMax, mayDefer = () => false, deferMaxMs = 0 } = options;
  const consumer = openConsumer(options);
  const closing = new AbortController();
  const assignment = new Assignment();
  const offsets = options.commitOffsets ? handledOffsets(consumer, options, assignment) : undefined;
  let batchesInFlight = 0;
  const handle = async (batch: PartitionBatch, signal: AbortSignal) => {
    batchesInFlight++;
    try {
      if (batch.records.length > 0) await options.onBatch(batch.records, signal, batch.endOffset);
      offsets?.add(batch.partition, batch);
      options.onHandled?.(batch.partition, batch.nextOffset);
    } finally {
      batchesInFlight--;
    }
  };
  const shared = { queue: new PartitionQueue(), assignment, batchSizeMax, closing: closing.signal };
  const deferral = new Deferral({ ...shared, mayDefer, deferMaxMs, handle, log });

  const unreadable = unreadablePartitions(options);
  let lastContactMs = 0;
  const onContact = () => {
    lastContactMs = Date.now();
  };
  const { GROUP_JOIN, HEARTBEAT, FETCH, CRASH } = consumer.events;
  consumer.on(HEARTBEAT, onContact);
  consumer.on(FETCH, onContact);
  consumer.on(GROUP_JOIN, () => {
    onContact();
    assignment.renew();
    offsets?.clear();
    unreadable.clear();
    options.onAssigned?.();
  });
  consumer.on(CRASH, ({ payload }) => {
    if (!payload.restart && !closing.signal.aborted) options.onCrash(payload.error);
  });
  const eachBatch = batchReceiver({ ...options, ...shared, deferral, unreadable });
  const started = start(consumer, options, eachBatch, closing.signal).catch(options.onCrash);

  return {
    isReady: () => Date.now() - lastContactMs < silenceMaxMs,
    unreadable: () => unreadable.list(),
    async close() {
      closing.abort(new Error("The consumer is closing."));
      deferral.close();
      unreadable.close();
      await endsWithin(started, startTimeoutMs);
      for (let waitedMs = 0; batchesInFlight > 0 && waitedMs < batchTimeoutMs; waitedMs += 10) {
        await sleep(10);
      }
      await offsets?.close();
      await consumer.disconnect().catch(() => undefined);
    },
  };
}

function openConsumer(options: TopicConsumerOptions): Consumer {
  return kafkaClient(options).consumer({
    groupId: options.groupId,
    allowAutoTopicCreation: false,
    // The group notices a killed member after 6 s, the shortest time that brokers allow by default.
    sessionTimeout: 6_000,
    heartbeatInterval: 1_500,
    rebalanceTimeout: 10_000,
    minBytes: options.fetchWaitMs === undefined ? 1 : fetchBytesMin,
    maxWaitTimeInMs: options.fetchWaitMs ?? 500,
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 8, restartOnFailure: async () => true },
  });
}

function handledOffsets(consumer: Consumer, { topic, log }: TopicConsumerOptions, assignment: Assignment) {
  return new HandledOffsets({
    assignment,
    commit: (offsets) => consumer.commitOffsets(offsets.map((it) => ({ topic, ...it }))),
    log,
  });
}

/** Connects, again and again until a broker answers, and starts fetching. */
async function start(
  consumer: Consumer,
  { topic, from, groupId, partitionsConcurrently, log }: TopicConsumerOptions,
  eachBatch: EachBatchHandler,
  closing: AbortSignal,
): Promise<void> {
  for (;;) {
    try {
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: from === "earliest" });
      break;
    } catch (error) {
      if (closing.aborted) return;
      log.warn({ err: error, groupId }, "waiting for the broker");
      await sleep(connectRetryMs);
    }
  }
  if (closing.aborted) return;
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    partitionsConsumedConcurrently: partitionsConcurrently,
    eachBatch,
  });
}

function unreadablePartitions({ unreadableRetryMs, onUnreadable, log }: TopicConsumerOptions): UnreadablePartitions {
  return new UnreadablePartitions({
    retryMs: unreadableRetryMs ?? defaultUnreadableRetryMs,
    onChange: (partition, batch) => onUnreadable?.(partition, batch),
    log,
  });
}

/** What our patch of kafkajs adds: why nothing after these messages could be decoded. */
type PatchedBatch = Batch & { readonly fetchedOffset: string; readonly unreadable?: unknown };

/**
 * Passes what kafkajs fetched from a partition to the deferral, in slices of at most `batchSizeMax` records. If that takes
 * long, it goes on in the background, while the partition is paused.
 */
function batchReceiver(options: {
  readonly queue: PartitionQueue;
  readonly deferral: Deferral;
  readonly assignment: Assignment;
  readonly unreadable: UnreadablePartitions;
  readonly batchSizeMax: number;
  readonly stepAsideAfterMs?: number;
  readonly closing: AbortSignal;
  readonly log: Logger;
}): EachBatchHandler {
  const { queue, deferral, assignment, batchSizeMax, stepAsideAfterMs, closing, log } = options;
  return async ({ batch, heartbeat, resolveOffset, isRunning, isStale, pause }) => {
    const { partition, highWatermark: endOffset, fetchedOffset, unreadable: error } = batch as PatchedBatch;
    // Records before an unreadable batch are handled first. The next fetch begins at it.
    if (batch.firstOffset() === null) {
      options.unreadable.add({ partition, offset: fetchedOffset, endOffset, error }, pause);
      return;
    }
    options.unreadable.remove(partition);
    const { generation } = assignment;
    const assigned = assignment.signal;
    let lost: { readonly reason: unknown } | undefined;
    const onHeartbeatError = (reason: unknown) => {
      lost ??= { reason };
      // Ends this batch, and the deferred records that it may be queued behind: they would hold up the group's rejoin.
      assignment.end(reason);
    };
    const heartbeats = setInterval(() => heartbeat().catch(onHeartbeatError), heartbeatDuringBatchMs);
    const handled = queue.run(partition, async () => {
      using linked = linkSignals(assigned, closing);
      const { signal } = linked;
      for (const { messages, lastOffset } of slicesOf(batch, batchSizeMax)) {
        if (!isRunning() || isStale() || signal.aborted) break;
        const records = messages.map((message) => toTopicRecord(message, partition));
        const nextOffset = (BigInt(lastOffset) + 1n).toString();
        await deferral.receive({ partition, records, nextOffset, endOffset, generation }, signal);
        // After a join, the offsets to resolve are those of another assignment.
        if (generation === assignment.generation) resolveOffset(lastOffset);
      }
    });
    try {
      if (stepAsideAfterMs === undefined || (await endsWithin(handled, stepAsideAfterMs))) await handled;
      // kafkajs itself sends heartbeats between the fetches of the other partitions, even if all are paused.
      else goOnPaused(handled, pause(), (error) => log.warn({ err: error, partition }, "paused partition not handled"));
    } catch (error) {
      // kafkajs ends for good on some of JavaScript's own errors, a TypeError for example, instead of fetching again.
      if (lost === undefined) throw new Error(describeError(error), { cause: error });
    } finally {
      clearInterval(heartbeats);
    }
    // Rethrow kafkajs's own rebalance error so that it rejoins.
    if (lost !== undefined) throw lost.reason;
  };
}

/** Resumes the partition when its records are handled. After an error they are fetched again. */
function goOnPaused(handled: Promise<void>, resume: () => void, onError: (error: unknown) => void): void {
  handled.catch(onError).finally(resume);
}

/** The last slice ends after the transaction markers behind the messages. A batch of nothing but markers is one slice. */
function* slicesOf(batch: Batch, sizeMax: number) {
  for (let first = 0; ; first += sizeMax) {
    const messages = batch.messages.slice(first, first + sizeMax);
    const isLast = first + sizeMax >= batch.messages.length;
    yield { messages, lastOffset: (isLast ? undefined : messages.at(-1)?.offset) ?? batch.lastOffset() };
    if (isLast) return;
  }
}

/** The range of a Date. */
const timeMaxMs = 8.64e15;

function toTopicRecord({ key, value, headers, offset, timestamp }: KafkaMessage, partition: number): TopicRecord {
  const publishedAt = new Date(Math.max(-timeMaxMs, Math.min(timeMaxMs, Number(timestamp))));
  return { key, value, headers, partition, offset, publishedAt };
}
