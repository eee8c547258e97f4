/** Starts the relay of one source: builds its parts from the options, and runs the loop of relay.ts over them. */
import type { Registry } from "@bufbuild/protobuf";
import type { Encoding } from "../../proto/envelope.ts";
import { every } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { RecordProducer } from "../kafka/producer.ts";
import { AcknowledgedRows } from "./acknowledged-rows.ts";
import { HeldKeys } from "./held-keys.ts";
import type { RelayMetrics } from "./metrics.ts";
import { OwnedProducer } from "./owned-producer.ts";
import type { Ownership } from "./ownership.ts";
import { PoisonRows } from "./poison-rows.ts";
import { Publisher } from "./publisher.ts";
import { RefusedPartitions } from "./refused-partitions.ts";
import { SourceRelay } from "./relay.ts";
import { attemptsMaxDefault, type RetryBackoff, retryBackoffDefault, schemaBehindHoldMs } from "./retry-policy.ts";
import type { OutboxStore } from "./store.ts";

export interface RelaySourceOptions {
  /** In logs and metrics. */
  readonly name: string;
  readonly topic: string;
  /** Where dead letters go. Default: the topic's name and `.dlq`. */
  readonly deadLetterTopic?: string;
  /** CloudEvents source. */
  readonly ceSource: string;
  readonly encoding: Encoding;
  readonly registry: Registry;
  readonly store: OutboxStore;
  readonly ownership: Ownership;
  /** Connects a producer with the time limit `sendTimeoutMs` (ownership-times.ts). */
  readonly openProducer: () => Promise<RecordProducer>;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  /**
   * How long an idle source sleeps without a hint, and so the longest delay of an event whose hint is lost. Default 600: an
   * idle source then costs 4.5 statements a second, two for each poll, and the owner's ping and the gauges.
   */
  readonly pollIntervalMs?: number;
  /** How long the relay waits before it attempts a schema-behind row again. Default: see retry-policy.ts. */
  readonly schemaBehindHoldMs?: number;
  /** Attempts at a poison row before it is DEAD. Default: see retry-policy.ts. */
  readonly attemptsMax?: number;
  /** Waits between the attempts at a poison row. Default: see retry-policy.ts. */
  readonly retryBackoff?: RetryBackoff;
  /** How often the gauges of rows are measured. Default 5,000: one statement each time. */
  readonly measureIntervalMs?: number;
}

/** A running source. It survives every outage of its database and of the broker. */
export interface RelaySource {
  /** Something was committed: read now, not at the next poll. */
  hint(): void;
  /** False while the database does not answer, or if this process owns the source and cannot deliver all of it. */
  isHealthy(): boolean;
  /** Finishes the send in flight, marks it, and releases the source. Closes producer, ownership and store. */
  close(): Promise<void>;
}

const pollIntervalDefaultMs = 600;
const measureIntervalDefaultMs = 5_000;

/** Starts to relay one source, as soon as this process owns it. */
export function startRelaySource(options: RelaySourceOptions): RelaySource {
  const { name: source, topic, ceSource, store, ownership, encoding, registry, metrics } = options;
  const log = options.log.child({ source });
  const pollIntervalMs = options.pollIntervalMs ?? pollIntervalDefaultMs;
  const common = { source, topic, ceSource, store, ownership, pollIntervalMs, log, metrics };
  const producer = new OwnedProducer({ ...common, openProducer: options.openProducer });
  const acknowledged = new AcknowledgedRows(common);
  const refusedPartitions = new RefusedPartitions(common);
  const heldKeys = new HeldKeys({
    ...common,
    refusedPartitions,
    readIntervalMs: pollIntervalMs,
    schemaBehindHoldMs: options.schemaBehindHoldMs ?? schemaBehindHoldMs,
  });
  const poisonRows = new PoisonRows({
    ...common,
    deadLetterTopic: options.deadLetterTopic ?? `${topic}.dlq`,
    attemptsMax: options.attemptsMax ?? attemptsMaxDefault,
    retryBackoff: options.retryBackoff ?? retryBackoffDefault,
    acknowledged,
    producer,
  });
  const parts = { ...common, producer, acknowledged, heldKeys, refusedPartitions };
  const publisher = new Publisher({ ...parts, encoding, registry, poisonRows });
  const relay = new SourceRelay({ ...parts, publisher });
  const running = relay.run();
  // Deliveries do not wait for it. If it fails, the gauges keep their last values. Most causes also fail a pass, which logs
  // them.
  const measuring = every(
    options.measureIntervalMs ?? measureIntervalDefaultMs,
    () => relay.measure(),
    () => undefined,
  );
  return {
    hint: () => relay.hint(),
    isHealthy: () => relay.isHealthy(),
    async close() {
      relay.stop();
      await Promise.all([running, measuring.close()]);
      await Promise.allSettled([producer.close(), ownership.close(), store.close()]);
    },
  };
}
