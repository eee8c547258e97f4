/** The consumer of one service: joins its consumer group and brings what the topic delivers to the inbox. */
import type { Registry as Metrics } from "prom-client";
import { typeOfRecord } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import { createGroupCommit } from "../../services/kit/group-commit.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import { consumeTopic, type TopicConsumer, type TopicConsumerOptions, type TopicRecord } from "../kafka/consumer.ts";
import { errorFields } from "./faults.ts";
import type { Inbox } from "./inbox.ts";
import { type ConsumerMetrics, createConsumerMetrics } from "./metrics.ts";
import { startRedelivery } from "./redelivery.ts";
import { inboxRetryPolicy } from "./retry-policy.ts";

export interface InboxConsumerOptions {
  /** Names the consumer group. */
  readonly service: string;
  readonly topic: string;
  readonly kafka: KafkaOptions;
  readonly inbox: Inbox;
  /**
   * Event types that are handled as soon as they arrive. Records of other types, including those that are not handled here,
   * are handled together with the next urgent one of their partition, or after 100 ms. Default: all types.
   */
  readonly urgentToHandle?: ReadonlySet<string>;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** The consumer has stopped for good: end the process. */
  readonly onCrash: (error: Error) => void;
  /** Records in one transaction. Default 500. */
  readonly batchSizeMax?: number;
}

/** How long a record that is not urgent may be deferred. */
const deferMaxMs = 100;
/** As many as the topic has on the local stack. A fetch's partitions are handled concurrently, and share transactions. */
const partitionsConcurrently = 12;

/**
 * Joins the service's consumer group and handles every batch through `inbox` until closed. It also redelivers
 * parked keys on request. If `inbox` throws, it backs off and retries the same batch, so nothing is lost.
 */
export async function startConsumer(options: InboxConsumerOptions): Promise<TopicConsumer> {
  const { service, inbox, urgentToHandle, log, batchSizeMax = 500 } = options;
  const metrics = createConsumerMetrics(options.metrics);
  const consumer = consumeTopic({
    ...options.kafka,
    groupId: service,
    topic: options.topic,
    from: "earliest",
    commitOffsets: true,
    partitionsConcurrently,
    batchSizeMax,
    mayDefer: (record) => urgentToHandle !== undefined && !urgentToHandle.has(typeOfRecord(record) ?? ""),
    deferMaxMs,
    onCrash: options.onCrash,
    // Only the member that owns a partition shows its lag.
    onAssigned: () => metrics.lagRecords.reset(),
    onBatch: retryingBatches({ service, handle: sharingTransactions(inbox, batchSizeMax), metrics, log }),
  });
  const redelivery = startRedelivery(inbox.redeliverRequested, log);
  return {
    isReady: consumer.isReady,
    async close() {
      await Promise.all([consumer.close(), redelivery.close()]);
    },
  };
}

type HandleBatch = (records: readonly TopicRecord[], signal: AbortSignal) => Promise<void>;

/**
 * Batches of several partitions that arrive at the same time are handled in one transaction: its fixed cost exceeds that of
 * the events in it, above all if there are few CPU cores. Which records share a transaction never changes their effect.
 */
function sharingTransactions(inbox: Inbox, recordsMax: number): HandleBatch {
  interface Batch {
    readonly records: readonly TopicRecord[];
    readonly signal: AbortSignal;
  }
  const group = createGroupCommit<Batch, undefined>({
    sizeMax: recordsMax,
    sizeOf: ({ records }) => records.length,
    // More than the partitions that can wait at once.
    waitingMax: 1_000,
    gathersTurn: true,
    // The inbox itself finds the faulty record, so a group that fails is not split here.
    isOutage: () => true,
    async commit(batches) {
      // If one partition is lost, the whole group stops. The loops of the other partitions retry theirs.
      const signal = AbortSignal.any(batches.map((batch) => batch.signal));
      await inbox.handle(
        batches.flatMap((batch) => batch.records),
        signal,
      );
      return batches.map(() => undefined);
    },
  });
  return (records, signal) => group.submit({ records, signal }, signal);
}

/** Handles each batch until it succeeds or `signal` is aborted, and keeps the partition's lag up to date. */
function retryingBatches(deps: {
  readonly service: string;
  readonly handle: HandleBatch;
  readonly metrics: ConsumerMetrics;
  readonly log: Logger;
}): TopicConsumerOptions["onBatch"] {
  const { handle, metrics, log } = deps;
  return async (records, signal, endOffset) => {
    const [first, last] = [records[0], records.at(-1)];
    if (first === undefined || last === undefined) return;
    const labels = { group: deps.service, partition: first.partition };
    const setLag = (nextOffset: bigint) => metrics.lagRecords.set(labels, Number(BigInt(endOffset) - nextOffset));
    setLag(BigInt(first.offset));
    for (let attempt = 0; ; attempt++) {
      try {
        await handle(records, signal);
        setLag(BigInt(last.offset) + 1n);
        return;
      } catch (error) {
        metrics.batchFailures.inc();
        log.error(
          { partition: first.partition, offset: first.offset, ...errorFields(error) },
          "attempt at a batch failed",
        );
        if (signal.aborted) throw error;
        await sleep(fullJitterMs(attempt, inboxRetryPolicy.batch.backoff), signal);
        if (signal.aborted) throw error;
      }
    }
  };
}
