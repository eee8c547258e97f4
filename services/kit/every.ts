import { sleep } from "./backoff.ts";

/** Work that repeats until it is closed. */
export interface Schedule {
  /** Aborts the signal of the current run and resolves when that run has ended. */
  close(): Promise<void>;
}

/**
 * Runs `work` every `intervalMs`, for the first time after one interval. Runs never overlap: the interval starts when the
 * previous run has ended. If a run fails, its error goes to `onError` and the next run starts as usual.
 */
export function every(
  intervalMs: number,
  work: (signal: AbortSignal) => Promise<unknown>,
  onError: (error: unknown) => void,
  /** `startNow`: the first run starts at once instead of after one interval. */
  options: { readonly startNow?: boolean } = {},
): Schedule {
  const closing = new AbortController();
  const repeat = async () => {
    if (!options.startNow) await sleep(intervalMs, closing.signal);
    while (!closing.signal.aborted) {
      await work(closing.signal).catch(onError);
      await sleep(intervalMs, closing.signal);
    }
  };
  const running = repeat();
  return {
    async close() {
      closing.abort();
      await running;
    },
  };
}
