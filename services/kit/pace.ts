import { sleep } from "./backoff.ts";

export interface PaceOptions {
  /** The pause after each batch, while the run keeps up. */
  readonly pauseMs: number;
  /** A run that takes longer than this is behind. Default 60,000. */
  readonly behindAfterMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

const behindAfterDefaultMs = 60_000;

/**
 * The pauses between the batches of one background run. They leave room for other work. A run that is behind pauses only
 * as long as its last batch took, so that it works half of the time and keeps up with whatever fills the table.
 * @returns what to await after each batch.
 */
export function startPace({ pauseMs, behindAfterMs = behindAfterDefaultMs, signal }: PaceOptions): () => Promise<void> {
  const startedMs = performance.now();
  let batchStartedMs = startedMs;
  return async () => {
    const nowMs = performance.now();
    const isBehind = nowMs - startedMs >= behindAfterMs;
    await sleep(isBehind ? Math.min(pauseMs, nowMs - batchStartedMs) : pauseMs, signal);
    batchStartedMs = performance.now();
  };
}
