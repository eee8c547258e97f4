import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Parked keys are counted up to this number, so that the count stays cheap. */
export const parkedKeysCountMax = 10_000;

/** The metrics of an inbox. */
export interface InboxMetrics {
  readonly events: Counter<"outcome">;
  readonly transactionRetries: Counter;
  readonly batchSeconds: Histogram;
  readonly parkedEvents: Counter<"reason">;
  readonly parkedKeys: Gauge;
  readonly redeliveries: Counter<"result">;
  readonly stopped: Gauge;
}

/** Registers the metrics of an inbox. Once per registry. */
export function createInboxMetrics(registry: Registry): InboxMetrics {
  const registers = [registry];
  return {
    events: new Counter({
      name: "inbox_events_total",
      help: "Records by outcome: handled, ignored, parked, duplicate, skipped (gets no inbox row: its type is neither handled nor recorded here, or it is not an event).",
      labelNames: ["outcome"],
      registers,
    }),
    transactionRetries: new Counter({
      name: "inbox_transaction_retries_total",
      help: "Transactions that were repeated after a deadlock or a lock wait.",
      registers,
    }),
    batchSeconds: new Histogram({
      name: "inbox_batch_seconds",
      help: "Time to handle a batch, including decoding, halving and retries of single events. Batches that fail are not observed.",
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
      registers,
    }),
    parkedEvents: new Counter({
      name: "inbox_parked_events_total",
      help: "Parked events by fault; BEHIND for those that arrived while their key was parked, whatever else is wrong with them.",
      labelNames: ["reason"],
      registers,
    }),
    parkedKeys: new Gauge({
      name: "inbox_parked_keys",
      help: `The service's parked keys, read from its database, so every instance shows the same. Counted up to ${parkedKeysCountMax}.`,
      registers,
    }),
    redeliveries: new Counter({
      name: "inbox_redeliveries_total",
      help: "Redeliveries of a parked key by result: handled (no longer parked), failed (still parked), outage (will be retried).",
      labelNames: ["result"],
      registers,
    }),
    stopped: new Gauge({
      name: "inbox_stopped",
      help: "1 while the circuit breaker is open: too many keys failed in a row, nothing more is parked, batches are retried until one succeeds.",
      registers,
    }),
  };
}

/** The metrics of an inbox's consumer. */
export interface ConsumerMetrics {
  readonly batchFailures: Counter;
  readonly lagRecords: Gauge<"group" | "partition">;
  readonly unreadablePartitions: Gauge<"group" | "partition">;
}

/** Registers the metrics of an inbox's consumer. Once per registry. */
export function createConsumerMetrics(registry: Registry): ConsumerMetrics {
  const registers = [registry];
  return {
    batchFailures: new Counter({
      name: "inbox_batch_failures_total",
      help: "Failed attempts at a batch.",
      registers,
    }),
    lagRecords: new Gauge({
      name: "inbox_lag_records",
      help: "Records of the partition that are not handled yet, as of its last batch.",
      labelNames: ["group", "partition"],
      registers,
    }),
    unreadablePartitions: new Gauge({
      name: "inbox_unreadable_partitions",
      help: "1 for a partition that waits because its next batch of records cannot be decoded. Others are not shown.",
      labelNames: ["group", "partition"],
      registers,
    }),
  };
}
