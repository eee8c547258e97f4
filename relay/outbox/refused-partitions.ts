/**
 * The partitions of one source's topic that refuse records while others accept them. With several brokers this is the
 * usual outage: a leader is gone, a partition has too few replicas, one broker's disk is full.
 *
 * All rows of a refused partition wait, and other partitions go on. From time to time one row is sent alone as a probe, in
 * the background, because a broker that does not answer costs a probe two seconds. Nothing is counted against a row.
 *
 * During a pass, partitions are only added. If one were released between two rows of a key, the second row would be sent
 * first.
 */
import { fullJitterMs } from "../../services/kit/backoff.ts";
import type { Logger } from "../../services/kit/log.ts";
import { partitionOf } from "../kafka/partitioner.ts";
import type { RelayMetrics } from "./metrics.ts";
import { outageBackoff } from "./retry-policy.ts";

/** Keys remembered of one partition, so that reads leave out their rows. */
const keysMax = 1_000;

interface Refusal {
  /** Why the last attempt failed. */
  error: unknown;
  failedProbes: number;
  nextProbeMs: number;
  isProbed: boolean;
  /** A probe was accepted: the next pass may send. */
  isOver: boolean;
  isLogged: boolean;
  /** Sends one of the rows that were refused. Resolves if the partition accepts records. */
  readonly probe: () => Promise<void>;
  /** Of rows that were read since. */
  readonly keys: Set<string>;
}

export interface RefusedPartitionsOptions {
  readonly source: string;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
}

export class RefusedPartitions {
  readonly #options: RefusedPartitionsOptions;
  readonly #refusals = new Map<number, Refusal>();
  readonly #probes = new Set<Promise<void>>();
  /** Of the topic, when the first of the partitions refused. */
  #partitionsCount = 0;
  #isStale = false;
  #onAccepted: () => void = () => undefined;

  constructor(options: RefusedPartitionsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#refusals.size;
  }

  /** Calls `listener` when a partition accepts records again. */
  onAccepted(listener: () => void): void {
    this.#onAccepted = listener;
  }

  /** Whether rows of this key wait. */
  holds(key: string): boolean {
    if (this.#refusals.size === 0) return false;
    const refusal = this.#refusals.get(partitionOf(key, this.#partitionsCount));
    if (refusal === undefined) return false;
    if (refusal.keys.size < keysMax) refusal.keys.add(key);
    return true;
  }

  /** Keys of rows that wait; not all of them. */
  keys(): readonly string[] {
    if (this.#refusals.size === 0) return [];
    return [...this.#refusals.values()].flatMap(({ keys }) => [...keys]);
  }

  /**
   * Holds all rows of a partition that refused some.
   * @param probe sends one of them again. Resolves if the partition accepts records.
   * @throws `error` if the topic's number of partitions has changed: then nothing that is known here is true any more.
   */
  hold(partition: { readonly number: number; readonly of: number }, error: unknown, probe: () => Promise<void>): void {
    if (this.#refusals.size > 0 && this.#partitionsCount !== partition.of) {
      this.expire();
      throw error;
    }
    this.#partitionsCount = partition.of;
    const refusal = {
      error,
      failedProbes: 0,
      nextProbeMs: 0,
      isProbed: false,
      isOver: false,
      isLogged: false,
      probe,
      keys: new Set<string>(),
    };
    this.#noteFailure(refusal, error);
    this.#refusals.set(partition.number, refusal);
    const { metrics, source } = this.#options;
    metrics.refusedPartitions.set({ source }, this.#refusals.size);
  }

  /**
   * Releases, between two passes, the partitions that accept records again, and starts the probes that are due.
   * @throws the error of a refusal if every partition refuses. That is an outage like any other, so all are released: the
   * relay's own backoff is the quicker way back.
   */
  refresh(nowMs: number): void {
    if (this.#refusals.size === 0 && !this.#isStale) return;
    const { log, metrics, source } = this.#options;
    for (const [partition, { isOver }] of this.#refusals) {
      if (!isOver) continue;
      this.#refusals.delete(partition);
      log.info({ partition }, "partition accepts records again");
    }
    const [first, ...others] = this.#refusals.values();
    const isOutage = first !== undefined && others.length + 1 >= this.#partitionsCount;
    if (isOutage || this.#isStale) this.#refusals.clear();
    this.#isStale = false;
    metrics.refusedPartitions.set({ source }, this.#refusals.size);
    if (isOutage) throw first.error;
    for (const [partition, refusal] of this.#refusals) {
      this.#logOnce(partition, refusal);
      if (!refusal.isProbed && nowMs >= refusal.nextProbeMs) this.#probe(refusal);
    }
  }

  /** Another owner may have sent the rows: the next {@link refresh} releases everything. */
  expire(): void {
    this.#isStale = true;
  }

  /** Resolves when no probe is in flight. */
  async settled(): Promise<void> {
    await Promise.all(this.#probes);
  }

  /** Not before the next pass, because an outage of every partition is logged as an outage. */
  #logOnce(partition: number, refusal: Refusal): void {
    if (refusal.isLogged) return;
    refusal.isLogged = true;
    this.#options.log.warn({ partition, err: refusal.error }, "partition refuses records: its keys wait, others go on");
  }

  #probe(refusal: Refusal): void {
    refusal.isProbed = true;
    const probing = refusal
      .probe()
      .then(
        () => {
          refusal.isOver = true;
          this.#onAccepted();
        },
        (error: unknown) => this.#noteFailure(refusal, error),
      )
      .finally(() => {
        refusal.isProbed = false;
        this.#probes.delete(probing);
      });
    this.#probes.add(probing);
  }

  #noteFailure(refusal: Refusal, error: unknown): void {
    refusal.error = error;
    refusal.nextProbeMs = performance.now() + fullJitterMs(refusal.failedProbes++, outageBackoff);
    this.#options.metrics.failures.inc({ source: this.#options.source, kind: "outage" });
  }
}
