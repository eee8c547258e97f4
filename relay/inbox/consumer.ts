/** The consumer of one service: joins its consumer group and brings what the topic delivers to the inbox. */
import type { Registry as Metrics } from "prom-client";
import { typeOfRecord } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import { createGroupCommit } from "../../services/kit/group-commit.ts";
import { linkSignals } from "../../services/kit/linked-signal.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import { consumeTopic, type TopicConsumer, type TopicConsumerOptions, type TopicRecord } from "../kafka/consumer.ts";
import { BatchSize } from "./batch-size.ts";
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
 * parked keys on request. If `inbox` throws, it backs off and retries the same records, each partition for itself and in
 * smaller transactions, so that nothing is lost and a partition that fails delays no other.
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
    stepAsideAfterMs: inboxRetryPolicy.batch.stepAsideAfterMs,
    onCrash: options.onCrash,
    // Only the member that owns a partition shows its lag.
    onAssigned() {
      metrics.lagRecords.reset();
      metrics.unreadablePartitions.reset();
    },
    onUnreadable(partition, unreadable) {
      const labels = { group: service, partition };
      if (unreadable === undefined) return metrics.unreadablePartitions.remove(labels);
      metrics.unreadablePartitions.set(labels, 1);
      metrics.lagRecords.set(labels, Number(BigInt(unreadable.endOffset) - BigInt(unreadable.offset)));
    },
    unreadableRetryMs: inboxRetryPolicy.unreadablePartition.retryMs,
    onBatch: retryingBatches({ service, inbox, batchSizeMax, metrics, log }),
  });
  const redelivery = startRedelivery(inbox.redeliverRequested, log);
  return {
    isReady: consumer.isReady,
    unreadable: consumer.unreadable,
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
    // The inbox itself finds a faulty record, and after an outage each partition goes on alone.
    isOutage: () => true,
    async commit(batches) {
      // If one partition is lost, the whole group stops. The loops of the other partitions retry theirs.
      using linked = linkSignals(...batches.map((batch) => batch.signal));
      await inbox.handle(
        batches.flatMap((batch) => batch.records),
        linked.signal,
      );
      return batches.map(() => undefined);
    },
  });
  return (records, signal) => group.submit({ records, signal }, signal);
}

/**
 * Handles each batch until it succeeds or `signal` is aborted, and keeps the partition's lag up to date. A partition whose
 * last transaction failed has transactions of its own, so that it fails no other.
 */
function retryingBatches(deps: {
  readonly service: string;
  readonly inbox: Inbox;
  readonly batchSizeMax: number;
  readonly metrics: ConsumerMetrics;
  readonly log: Logger;
}): TopicConsumerOptions["onBatch"] {
  const { inbox, batchSizeMax, metrics, log } = deps;
  const handleTogether = sharingTransactions(inbox, batchSizeMax);
  const sizes = new Map<number, BatchSize>();
  const sizeOf = (partition: number) => {
    const size = sizes.get(partition) ?? new BatchSize(batchSizeMax);
    sizes.set(partition, size);
    return size;
  };
  return async (records, signal, endOffset) => {
    const [first] = records;
    if (first === undefined) return;
    const { partition } = first;
    const size = sizeOf(partition);
    const labels = { group: deps.service, partition };
    const setLag = (nextOffset: bigint) => metrics.lagRecords.set(labels, Number(BigInt(endOffset) - nextOffset));
    setLag(BigInt(first.offset));
    let handled = 0;
    let failures = 0;
    while (handled < records.length) {
      const part = records.slice(handled, handled + size.recordsMax);
      const startedMs = performance.now();
      try {
        await (size.isReduced ? inbox.handle(part, signal) : handleTogether(part, signal));
      } catch (error) {
        metrics.batchFailures.inc();
        log.error(
          { partition, offset: part[0]?.offset, records: part.length, ...errorFields(error) },
          "attempt at a batch failed",
        );
        if (signal.aborted) throw error;
        size.failed(part.length);
        await sleep(fullJitterMs(failures++, inboxRetryPolicy.batch.backoff), signal);
        if (signal.aborted) throw error;
        continue;
      }
      size.succeeded(performance.now() - startedMs);
      failures = 0;
      handled += part.length;
      setLag(BigInt(part.at(-1)?.offset ?? first.offset) + 1n);
    }
  };
}
