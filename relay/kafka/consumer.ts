/**
 * Consumes a topic as a member of a group, with what kafkajs lacks: heartbeats during a long batch, and a signal when
 * the partition may belong to another member.
 */
import type { Consumer, EachBatchHandler, KafkaMessage } from "kafkajs";
import type { ConsumedRecord } from "../../proto/envelope.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { endsWithin } from "../../services/kit/deadline.ts";
import { linkSignals } from "../../services/kit/linked-signal.ts";
import type { Logger } from "../../services/kit/log.ts";
import { Assignment } from "./assignment.ts";
import { type KafkaOptions, kafkaClient } from "./client.ts";
import { Deferral, type PartitionBatch } from "./deferral.ts";
import { HandledOffsets } from "./offsets.ts";
import { PartitionQueue } from "./partition-queue.ts";

/** A record that was consumed, with its place on the topic. */
export interface TopicRecord extends ConsumedRecord {
  readonly partition: number;
  /** Decimal. */
  readonly offset: string;
  /** When the record was produced. */
  readonly publishedAt: Date;
}

/** A consumer of one topic in a group. */
export interface TopicConsumer {
  /** True while it is in its group and has heard from the broker within the last seconds. */
  isReady(): boolean;
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
   * Handles records of one partition, in order. If it throws, they are delivered again, perhaps with some that were
   * handled before. `signal` is aborted when the partition may belong to another member, or the consumer closes: then
   * stop waiting and throw. `endOffset` (decimal) is the offset of the partition's next record, as of the fetch.
   */
  readonly onBatch: (records: readonly TopicRecord[], signal: AbortSignal, endOffset: string) => Promise<void>;
  /**
   * Whether a record may be deferred: it is then handled together with the next record of its partition that may not, or
   * after `deferMaxMs`. Its offset is committed when it is handled. Default: no record is deferred.
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
  /** The consumer has stopped for good. The process should exit and be restarted. */
  readonly onCrash: (error: Error) => void;
}

/** Several times the interval at which an idle consumer hears from its broker. */
const silenceMaxMs = 5_000;
const heartbeatDuringBatchMs = 1_000;
const fetchBytesMin = 100_000;
const connectRetryMs = 500;
/** How long close() waits for the consumer to finish starting. */
const startTimeoutMs = 1_000;
/** How long close() waits for the batches in flight. */
const batchTimeoutMs = 3_000;

/** Joins the group in the background, whether or not a broker answers yet, and keeps trying. */
export async function consumeTopic(options: TopicConsumerOptions): Promise<TopicConsumer> {
  const { log, batchSizeMax, mayDefer = () => false, deferMaxMs = 0 } = options;
  const consumer = openConsumer(options);
  const closing = new AbortController();
  const assignment = new Assignment();
  const offsets = options.commitOffsets ? handledOffsets(consumer, options, assignment) : undefined;
  let batchesInFlight = 0;
  const handle = async ({ partition, records, endOffset, generation }: PartitionBatch, signal: AbortSignal) => {
    const last = records.at(-1);
    if (last === undefined) return;
    batchesInFlight++;
    try {
      await options.onBatch(records, signal, endOffset);
      offsets?.add(partition, (BigInt(last.offset) + 1n).toString(), generation);
    } finally {
      batchesInFlight--;
    }
  };
  const queue = new PartitionQueue();
  const deferral = new Deferral({
    mayDefer,
    deferMaxMs,
    batchSizeMax,
    handle,
    queue,
    assignment,
    closing: closing.signal,
    log,
  });

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
    options.onAssigned?.();
  });
  consumer.on(CRASH, ({ payload }) => {
    if (!payload.restart && !closing.signal.aborted) options.onCrash(payload.error);
  });
  const eachBatch = batchReceiver({ ...options, queue, deferral, assignment, closing: closing.signal });
  const started = start(consumer, options, eachBatch, closing.signal).catch(options.onCrash);

  return {
    isReady: () => Date.now() - lastContactMs < silenceMaxMs,
    async close() {
      closing.abort(new Error("The consumer is closing."));
      deferral.close();
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

/** Connects, trying again until a broker answers, and starts fetching. */
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

/**
 * Passes what kafkajs fetched of a partition to the deferral, in slices of at most `batchSizeMax` records. If that takes
 * long, it goes on in the background, while the partition is paused.
 */
function batchReceiver(options: {
  readonly queue: PartitionQueue;
  readonly deferral: Deferral;
  readonly assignment: Assignment;
  readonly batchSizeMax: number;
  readonly stepAsideAfterMs?: number;
  readonly closing: AbortSignal;
  readonly log: Logger;
}): EachBatchHandler {
  const { queue, deferral, assignment, batchSizeMax, stepAsideAfterMs, closing, log } = options;
  return async ({ batch, heartbeat, resolveOffset, isRunning, isStale, pause }) => {
    const { partition, messages, highWatermark: endOffset } = batch;
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
      for (let first = 0; first < messages.length; first += batchSizeMax) {
        if (!isRunning() || isStale() || signal.aborted) break;
        const slice = messages.slice(first, first + batchSizeMax);
        const records = slice.map((message) => toTopicRecord(message, partition));
        await deferral.receive({ partition, records, endOffset, generation }, signal);
        // After a join, the offsets to resolve are those of another assignment.
        if (generation === assignment.generation) resolveOffset(slice.at(-1)?.offset ?? batch.lastOffset());
      }
    });
    try {
      if (stepAsideAfterMs === undefined || (await endsWithin(handled, stepAsideAfterMs))) await handled;
      // kafkajs itself sends heartbeats between the fetches of the other partitions, even if all are paused.
      else goOnPaused(handled, pause(), (error) => log.warn({ err: error, partition }, "paused partition not handled"));
      // Rethrow kafkajs's own rebalance error so that it rejoins.
      if (lost !== undefined) throw lost.reason;
    } finally {
      clearInterval(heartbeats);
    }
  };
}

/** Resumes the partition when its records are handled. After an error they are fetched again. */
function goOnPaused(handled: Promise<void>, resume: () => void, onError: (error: unknown) => void): void {
  handled.catch(onError).finally(resume);
}

function toTopicRecord({ key, value, headers, offset, timestamp }: KafkaMessage, partition: number): TopicRecord {
  return { key, value, headers, partition, offset, publishedAt: new Date(Number(timestamp)) };
}
