import { sleep } from "./backoff.ts";

/** Work that repeats until it is closed. */
export interface Schedule {
  /** Aborts the signal of a run under way and resolves when that run has ended. */
  close(): Promise<void>;
}

/**
 * Runs `work` every `intervalMs`, for the first time after one interval. Runs never overlap: the interval starts when the
 * previous run has ended. A run that fails is passed to `onError`, and the next one starts as usual.
 */
export function every(
  intervalMs: number,
  work: (signal: AbortSignal) => Promise<unknown>,
  onError: (error: unknown) => void,
): Schedule {
  const closing = new AbortController();
  const running = (async () => {
    for (;;) {
      await sleep(intervalMs, closing.signal);
      if (closing.signal.aborted) return;
      await work(closing.signal).catch(onError);
    }
  })();
  return {
    async close() {
      closing.abort();
      await running;
    },
  };
}
