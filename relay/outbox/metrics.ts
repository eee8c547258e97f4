import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { countedRowsMax } from "./store.ts";

/** The relay's metrics, each by source. */
export interface RelayMetrics {
  readonly published: Counter<"source">;
  readonly failedEvents: Counter<"source">;
  readonly deadEvents: Counter<"source">;
  readonly batchRows: Histogram<"source">;
  readonly commitToPublishSeconds: Histogram<"source">;
  /** `kind` is a Fault (faults.ts) or `outage`. */
  readonly failures: Counter<"source" | "kind">;
  /** `kind` is a ProducerErrorKind (../kafka/errors.ts). */
  readonly producerErrors: Counter<"source" | "kind">;
  readonly owner: Gauge<"source">;
  // Only the source's owner shows the gauges below; other processes do not read the source.
  readonly pendingRows: Gauge<"source">;
  readonly heldRows: Gauge<"source">;
  readonly oldestPendingAgeSeconds: Gauge<"source">;
  /** `status` is that of the row that holds the key: `failed` or `dead`. */
  readonly heldKeys: Gauge<"source" | "status">;
  readonly schemaBehindKeys: Gauge<"source">;
  readonly refusedPartitions: Gauge<"source">;
}

/** Registers the relay's metrics. Call it once per registry. */
export function createRelayMetrics(registry: Registry): RelayMetrics {
  const registers = [registry];
  return { ...createEventMetrics(registers), ...createFailureMetrics(registers), ...createOwnerGauges(registers) };
}

const labelNames = ["source"] as const;

function createEventMetrics(registers: Registry[]) {
  return {
    published: new Counter({
      name: "relay_published_total",
      help: "Events that were sent to the topic and marked.",
      labelNames,
      registers,
    }),
    failedEvents: new Counter({
      name: "relay_failed_total",
      help: "Events that became FAILED at their first attempt: poison, attempted again later.",
      labelNames,
      registers,
    }),
    deadEvents: new Counter({
      name: "relay_dead_total",
      help: "Events that became DEAD after their last attempt and are on the dead-letter topic.",
      labelNames,
      registers,
    }),
    batchRows: new Histogram({
      name: "relay_batch_rows",
      help: "Events in one send.",
      labelNames,
      buckets: [1, 2, 5, 10, 20, 50, 100, 200, 500],
      registers,
    }),
    commitToPublishSeconds: new Histogram({
      name: "relay_commit_to_publish_seconds",
      help: "From the insert (the database's clock) to the broker's acknowledgement (the relay's clock), of the oldest event of each send.",
      labelNames,
      buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60],
      registers,
    }),
  };
}

function createFailureMetrics(registers: Registry[]) {
  return {
    failures: new Counter({
      name: "relay_failures_total",
      help: "Failures by kind: outage (failed passes, and dead letters that were not sent), poison (failed attempts at events), schema-behind (events).",
      labelNames: ["source", "kind"] as const,
      registers,
    }),
    producerErrors: new Counter({
      name: "relay_producer_errors_total",
      help: "Sends, and connections for them, that failed: too-large, no-topic, not-authorized, not-ready, unreachable, timeout, other.",
      labelNames: ["source", "kind"] as const,
      registers,
    }),
  };
}

function createOwnerGauges(registers: Registry[]) {
  return {
    owner: new Gauge({
      name: "relay_owner",
      help: "1 if this process owns the source.",
      labelNames,
      registers,
    }),
    pendingRows: new Gauge({
      name: "relay_pending_rows",
      help: `Pending events whose key is not held. Rows of held keys beyond the first 1,000 count here too. Counted up to ${countedRowsMax}.`,
      labelNames,
      registers,
    }),
    heldRows: new Gauge({
      name: "relay_held_rows",
      help: `Pending events that wait behind another event of their key, for the first 1,000 held keys. Counted up to ${countedRowsMax}.`,
      labelNames,
      registers,
    }),
    oldestPendingAgeSeconds: new Gauge({
      name: "relay_oldest_pending_age_seconds",
      help: "Age of the oldest event that relay_pending_rows counts, by the database's clock; 0 if there is none.",
      labelNames,
      registers,
    }),
    heldKeys: new Gauge({
      name: "relay_held_keys",
      help: "Keys that wait behind an event that is failed (the relay attempts it again) or dead (waits for an operator).",
      labelNames: ["source", "status"] as const,
      registers,
    }),
    schemaBehindKeys: new Gauge({
      name: "relay_schema_behind_keys",
      help: "Keys that wait behind an event that is newer than the relay's schema: roll out a newer relay.",
      labelNames,
      registers,
    }),
    refusedPartitions: new Gauge({
      name: "relay_refused_partitions",
      help: "Partitions that refuse events while others accept them: their events wait, others go on.",
      labelNames,
      registers,
    }),
  };
}

/** Removes the gauges that only the source's owner shows, because from now on another process shows them. */
export function removeOwnerGauges(metrics: RelayMetrics, source: string): void {
  const { pendingRows, heldRows, oldestPendingAgeSeconds, schemaBehindKeys, refusedPartitions, heldKeys } = metrics;
  const gauges = [pendingRows, heldRows, oldestPendingAgeSeconds, schemaBehindKeys, refusedPartitions];
  for (const gauge of gauges) gauge.remove({ source });
  for (const status of ["failed", "dead"]) heldKeys.remove({ source, status });
}
