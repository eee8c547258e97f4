/** Partitions with a record batch that the client cannot decode. Nothing is skipped: the partition waits, the others go on. */
import type { Logger } from "../../services/kit/log.ts";

/** A place on the topic at which the client cannot read. */
export interface UnreadableBatch {
  readonly partition: number;
  /** Of the first record that cannot be read. Decimal. */
  readonly offset: string;
  /** The offset of the partition's next record. Decimal. */
  readonly endOffset: string;
  readonly error: unknown;
}

export interface UnreadablePartitionsOptions {
  /** How long a partition waits until it is read again. */
  readonly retryMs: number;
  /** A partition has become unreadable, or with undefined: it is readable, or belongs to another member. */
  readonly onChange: (partition: number, unreadable: UnreadableBatch | undefined) => void;
  readonly log: Logger;
}

interface Found {
  readonly batch: UnreadableBatch;
  /** Lets kafkajs fetch the partition again. */
  readonly resume: () => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

export class UnreadablePartitions {
  readonly #found = new Map<number, Found>();
  readonly #options: UnreadablePartitionsOptions;

  constructor(options: UnreadablePartitionsOptions) {
    this.#options = options;
  }

  list(): readonly UnreadableBatch[] {
    return [...this.#found.values()].map(({ batch }) => batch);
  }

  /** The partition is not readable at `batch.offset`. `pause` stops fetching it and returns what resumes it. */
  add(batch: UnreadableBatch, pause: () => () => void): void {
    const { retryMs, onChange, log } = this.#options;
    const { partition, offset, error } = batch;
    const before = this.#found.get(partition);
    if (before?.batch.offset !== offset) log.error({ err: error, partition, offset }, "partition not readable");
    clearTimeout(before?.timer);
    const resume = pause();
    this.#found.set(partition, { batch, resume, timer: setTimeout(resume, retryMs) });
    onChange(partition, batch);
  }

  /** Records of the partition have arrived. */
  remove(partition: number): void {
    const found = this.#found.get(partition);
    if (found === undefined) return;
    this.#forget(found);
    this.#options.log.info({ partition, offset: found.batch.offset }, "partition readable again");
  }

  /** Forgets all of them. Call it after a join: the partitions may belong to other members. */
  clear(): void {
    for (const found of this.#found.values()) {
      this.#forget(found);
      // kafkajs remembers what is paused, even while another member has the partition.
      found.resume();
    }
  }

  close(): void {
    for (const { timer } of this.#found.values()) clearTimeout(timer);
  }

  #forget({ batch: { partition }, timer }: Found): void {
    clearTimeout(timer);
    this.#found.delete(partition);
    this.#options.onChange(partition, undefined);
  }
}
