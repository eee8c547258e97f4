/**
 * Rows that the broker has acknowledged and that are not marked PUBLISHED yet.
 *
 * relay.ts says when they must be marked. A mark can run in the background while the next rows are read or sent, and rows
 * that were sent one by one are marked together. One mark runs at a time. Each is guarded by the row's status and is correct
 * whichever relay owns the source, so a mark needs no ownership.
 */
import type { Logger } from "../../services/kit/log.ts";
import type { RelayMetrics } from "./metrics.ts";
import type { OutboxStore } from "./store.ts";

/**
 * In steady state, how long acknowledged rows wait to be marked, so that rows that were sent one by one share a mark. After
 * a crash, the rows acknowledged within this time are sent again.
 */
const markDelayMs = 40;

export interface AcknowledgedRowsOptions {
  readonly source: string;
  readonly store: Pick<OutboxStore, "markPublished">;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
}

export class AcknowledgedRows {
  readonly #options: AcknowledgedRowsOptions;
  readonly #labels: { readonly source: string };
  /** In the order of their acknowledgement. */
  #ids: readonly string[] = [];
  /** When the oldest of the rows began to wait for its mark. */
  #waitingSinceMs = 0;
  /** The next mark waits for this one. It never rejects. */
  #lastMark: Promise<void> = Promise.resolve();
  #marksUnderWay = 0;
  #backgroundFailure: { readonly error: unknown } | undefined;

  constructor(options: AcknowledgedRowsOptions) {
    this.#options = options;
    this.#labels = { source: options.source };
  }

  get count(): number {
    return this.#ids.length;
  }

  get ids(): readonly string[] {
    return this.#ids;
  }

  get isMarkUnderWay(): boolean {
    return this.#marksUnderWay > 0;
  }

  add(ids: readonly string[]): void {
    if (this.#ids.length === 0) this.#waitingSinceMs = performance.now();
    this.#ids = [...this.#ids, ...ids];
  }

  /** Milliseconds until the rows are due to be marked; 0 if they are due. */
  markDueInMs(): number {
    return Math.max(0, this.#waitingSinceMs + markDelayMs - performance.now());
  }

  /** Marks every row acknowledged so far. If that fails, the rows stay here, and the next mark includes them. */
  mark(): Promise<void> {
    this.#marksUnderWay++;
    const marked = this.#lastMark.then(() => this.#markAll());
    this.#lastMark = marked
      .catch(() => undefined)
      .finally(() => {
        this.#marksUnderWay--;
      });
    return marked;
  }

  /** Starts a mark and returns at once. If it fails, {@link throwBackgroundFailure} throws its error. */
  markInBackground(): void {
    this.mark().catch((error: unknown) => {
      this.#backgroundFailure = { error };
    });
  }

  /** Throws the error of a background mark that failed, once; not if a later mark has succeeded. */
  throwBackgroundFailure(): void {
    const failure = this.#backgroundFailure;
    this.#backgroundFailure = undefined;
    if (failure !== undefined) throw failure.error;
  }

  async #markAll(): Promise<void> {
    const ids = this.#ids;
    const startedMs = performance.now();
    if (ids.length > 0) {
      const marked = await this.#options.store.markPublished(ids);
      // Rows that were acknowledged meanwhile follow at the end.
      this.#ids = this.#ids.slice(ids.length);
      this.#waitingSinceMs = startedMs;
      this.#options.metrics.published.inc(this.#labels, marked);
      if (marked < ids.length) {
        this.#options.log.warn(
          { rows: ids.length - marked },
          "some acknowledged rows were no longer PENDING or FAILED",
        );
      }
    }
    // An earlier failed mark no longer matters: its rows were among these.
    this.#backgroundFailure = undefined;
  }
}
