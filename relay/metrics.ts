import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** The relay's figures, each by source. */
export interface RelayMetrics {
  readonly published: Counter<"source">;
  readonly batchRows: Histogram<"source">;
  readonly commitToPublishSeconds: Histogram<"source">;
  /** `kind` is a FailureKind (failures.ts). */
  readonly failures: Counter<"source" | "kind">;
  readonly heldKeys: Gauge<"source">;
  readonly owner: Gauge<"source">;
}

/** Registers the relay's figures. Once a registry. */
export function createRelayMetrics(registry: Registry): RelayMetrics {
  const registers = [registry];
  return {
    published: new Counter({
      name: "relay_published_total",
      help: "Events that were put on the topic and marked.",
      labelNames: ["source"],
      registers,
    }),
    batchRows: new Histogram({
      name: "relay_batch_rows",
      help: "Events in one send.",
      labelNames: ["source"],
      buckets: [1, 2, 5, 10, 20, 50, 100, 200, 500],
      registers,
    }),
    commitToPublishSeconds: new Histogram({
      name: "relay_commit_to_publish_seconds",
      help: "From an event's insert (the database's clock) to its acknowledgement by the broker (the relay's clock).",
      labelNames: ["source"],
      buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60],
      registers,
    }),
    failures: new Counter<"source" | "kind">({
      name: "relay_failures_total",
      help: "Outages by failed attempt; poison and schema-behind by row that was found.",
      labelNames: ["source", "kind"],
      registers,
    }),
    heldKeys: new Gauge({
      name: "relay_held_keys",
      help: "Keys whose events wait behind one that is failed, dead, poison or newer than the relay's schema.",
      labelNames: ["source"],
      registers,
    }),
    owner: new Gauge({
      name: "relay_owner",
      help: "1 where this process owns the source.",
      labelNames: ["source"],
      registers,
    }),
  };
}
