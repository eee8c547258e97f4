/** Commits the offsets of handled records in the background. */
import { endsWithin } from "../../services/kit/deadline.ts";
import { every } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { Assignment } from "./assignment.ts";

const commitIntervalMs = 200;
const lastCommitTimeoutMs = 1_000;

/** How far a partition is handled. */
export interface HandledUpTo {
  /** All records before it are handled. Decimal. */
  readonly nextOffset: string;
  /** The offset of the partition's next record, as of the fetch. Decimal. */
  readonly endOffset: string;
  /** The assignment in which the records were fetched. */
  readonly generation: number;
}

/**
 * How far each partition is handled, and how far that is committed. One request commits all partitions, five times a
 * second, and one at a time; the inbox deduplicates what is redelivered after a crash.
 *
 * A committed offset never goes back, because Order times out no order while a committed offset is behind. kafkajs may
 * deliver records again that were handled before, and a failed commit is repeated with what is handled by then.
 */
export class HandledOffsets {
  /** By partition, the next offset to read. */
  #handled = new Map<number, bigint>();
  #committed = new Map<number, bigint>();
  readonly #options: HandledOffsetsOptions;
  readonly #commits = every(
    commitIntervalMs,
    () => this.#commit(),
    () => undefined,
  );

  constructor(options: HandledOffsetsOptions) {
    this.#options = options;
  }

  /** No-op if the group was joined again since `generation`, and if the partition is handled further already. */
  add(partition: number, { nextOffset, endOffset, generation }: HandledUpTo): void {
    if (generation !== this.#options.assignment.generation) return;
    const next = BigInt(nextOffset);
    const before = this.#handled.get(partition);
    // Beyond the partition's end, the records are gone (a lost broker, a topic created anew): there are others in their place.
    if (before !== undefined && before > next && before <= BigInt(endOffset)) return;
    this.#handled.set(partition, next);
  }

  /** Forgets all of them. Call it after a join: other members may have committed later offsets. */
  clear(): void {
    this.#handled = new Map();
    this.#committed = new Map();
  }

  /** Commits for the last time. Resolves within about a second, whether or not the broker answers. */
  async close(): Promise<void> {
    const lastCommit = this.#commits.close().then(() => this.#commit());
    await endsWithin(lastCommit, lastCommitTimeoutMs);
  }

  async #commit(): Promise<void> {
    const committed = this.#committed;
    const offsets = [...this.#handled].filter(([partition, offset]) => committed.get(partition) !== offset);
    if (offsets.length === 0) return;
    try {
      await this.#options.commit(offsets.map(([partition, offset]) => ({ partition, offset: offset.toString() })));
      for (const [partition, offset] of offsets) committed.set(partition, offset);
    } catch (error) {
      this.#options.log.warn({ err: error }, "offsets not committed");
    }
  }
}

export interface HandledOffsetsOptions {
  readonly assignment: Assignment;
  readonly commit: (offsets: readonly { readonly partition: number; readonly offset: string }[]) => Promise<void>;
  readonly log: Logger;
}
