/** Commits the offsets of handled records in the background. */
import { endsWithin } from "../../services/kit/deadline.ts";
import { every } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { Assignment } from "./assignment.ts";

const commitIntervalMs = 200;
const lastCommitTimeoutMs = 1_000;

/**
 * The offsets of handled records that are not committed yet. One request commits those of all partitions, five times a
 * second; the inbox deduplicates what is delivered again after a crash.
 */
export class HandledOffsets {
  /** By partition, the next offset to read. */
  #uncommitted = new Map<number, string>();
  readonly #options: HandledOffsetsOptions;
  readonly #commits = every(
    commitIntervalMs,
    () => this.#commit(),
    () => undefined,
  );

  constructor(options: HandledOffsetsOptions) {
    this.#options = options;
  }

  /** All records before `nextOffset` are handled. No-op if the group was joined again since `generation`. */
  add(partition: number, nextOffset: string, generation: number): void {
    if (generation === this.#options.assignment.generation) this.#uncommitted.set(partition, nextOffset);
  }

  /** Forgets all of them. Call it after a join: other members may have committed later offsets. */
  clear(): void {
    this.#uncommitted = new Map();
  }

  /** Commits for the last time. Resolves within about a second, whether or not the broker answers. */
  async close(): Promise<void> {
    const lastCommit = this.#commits.close().then(() => this.#commit());
    await endsWithin(lastCommit, lastCommitTimeoutMs);
  }

  async #commit(): Promise<void> {
    if (this.#uncommitted.size === 0) return;
    const { assignment, commit, log } = this.#options;
    const offsets = this.#uncommitted;
    this.#uncommitted = new Map();
    const { generation } = assignment;
    try {
      await commit([...offsets].map(([partition, offset]) => ({ partition, offset })));
    } catch (error) {
      log.warn({ err: error }, "offsets not committed");
      // Part of the next commit, unless the group was joined again: then another member may have committed later ones.
      if (generation === assignment.generation) this.#uncommitted = new Map([...offsets, ...this.#uncommitted]);
    }
  }
}

export interface HandledOffsetsOptions {
  readonly assignment: Assignment;
  readonly commit: (offsets: readonly { readonly partition: number; readonly offset: string }[]) => Promise<void>;
  readonly log: Logger;
}
