/**
 * Defers records that are not urgent: they are handled together with the next urgent record of their partition, or after
 * `deferMaxMs`. A transaction costs more than the statements in it, so fewer and larger batches are cheaper.
 */
import { linkSignals } from "../../services/kit/linked-signal.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { Assignment } from "./assignment.ts";
import type { TopicRecord } from "./consumer.ts";
import type { PartitionQueue } from "./partition-queue.ts";

/** Records of one partition, in order. */
export interface PartitionBatch {
  readonly partition: number;
  readonly records: readonly TopicRecord[];
  /** Where the next batch of the partition begins: after the last record, and after the transaction markers behind it. */
  readonly nextOffset: string;
  /** The offset of the partition's next record, as of the fetch. */
  readonly endOffset: string;
  /** The assignment in which the last of them was fetched. */
  readonly generation: number;
}

export interface DeferralOptions {
  readonly mayDefer: (record: TopicRecord) => boolean;
  readonly deferMaxMs: number;
  readonly batchSizeMax: number;
  readonly handle: (batch: PartitionBatch, signal: AbortSignal) => Promise<void>;
  readonly queue: PartitionQueue;
  readonly assignment: Assignment;
  /** Aborted when the consumer closes. */
  readonly closing: AbortSignal;
  readonly log: Logger;
}

/**
 * The records that were fetched and are not handled yet. They stay here until they are handled, even after a join, because
 * kafkajs counts them as delivered and continues after them. If they are delivered again all the same, the inbox
 * deduplicates them.
 */
export class Deferral {
  readonly #deferred = new Map<number, PartitionBatch>();
  readonly #options: DeferralOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: DeferralOptions) {
    this.#options = options;
  }

  /**
   * Handles the batch together with the deferred records before it, or defers it too. Call it from within the partition's
   * queue. If it throws, the records deferred before stay deferred, and the batch has to be delivered again.
   */
  async receive(batch: PartitionBatch, signal: AbortSignal): Promise<void> {
    const { partition, records } = batch;
    const { batchSizeMax, mayDefer, handle } = this.#options;
    const earlier = this.#deferred.get(partition)?.records ?? [];
    const merged = { ...batch, records: [...earlier, ...records] };
    if (merged.records.length > batchSizeMax) {
      // In two batches, because one would be too large.
      await handle({ ...batch, records: earlier, nextOffset: records[0]?.offset ?? batch.nextOffset }, signal);
      await handle(batch, signal);
    } else if (records.every(mayDefer)) {
      this.#deferred.set(partition, merged);
      this.#schedule();
      return;
    } else {
      await handle(merged, signal);
    }
    this.#deferred.delete(partition);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => this.#handleDeferred(), this.#options.deferMaxMs);
  }

  #handleDeferred(): void {
    this.#timer = undefined;
    const { queue, handle, assignment, closing, log } = this.#options;
    const assigned = assignment.signal;
    for (const partition of this.#deferred.keys()) {
      const handled = queue.run(partition, async () => {
        const batch = this.#deferred.get(partition);
        // Undefined if they were handled with later records meanwhile.
        if (batch === undefined) return;
        using linked = linkSignals(assigned, closing);
        await handle(batch, linked.signal);
        this.#deferred.delete(partition);
      });
      handled.catch((error) => {
        if (closing.aborted) return;
        log.warn({ err: error, partition }, "deferred records not handled; retrying");
        this.#schedule();
      });
    }
  }
}
