/** How many records of one partition go into one transaction. A batch that fails is tried again in smaller ones. */
import { inboxRetryPolicy } from "./retry-policy.ts";

const { slowMs } = inboxRetryPolicy.batch;

/**
 * Halved after each failure, whatever the cause: a batch that is too slow for a time limit or too large for the server would
 * fail at the same size for ever, and one that waits for a locked row should not hold up the records before that row. Doubled
 * after each quick success.
 */
export class BatchSize {
  readonly #full: number;
  #recordsMax: number;

  /** Starts at its full size. */
  constructor(full: number) {
    this.#full = full;
    this.#recordsMax = full;
  }

  get recordsMax(): number {
    return this.#recordsMax;
  }

  /** True from a failure until the full size is reached again. */
  get isReduced(): boolean {
    return this.#recordsMax < this.#full;
  }

  /** A transaction with this many records failed. */
  failed(records: number): void {
    this.#recordsMax = Math.max(1, Math.floor(Math.min(records, this.#recordsMax) / 2));
  }

  /** A transaction took this long. A slow one is followed by one of the same size. */
  succeeded(ms: number): void {
    if (ms < slowMs) this.#recordsMax = Math.min(this.#full, this.#recordsMax * 2);
  }
}
