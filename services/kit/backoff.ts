/**
 * Exponential backoff with full jitter: a random time from 0 to min(max, base × 2^attempt), in milliseconds.
 * Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 * @param attempt 0 for the first wait.
 */
export function fullJitterMs(
  attempt: number,
  options: { readonly baseMs: number; readonly maxMs: number; readonly random?: () => number },
): number {
  const ceilingMs = Math.min(options.maxMs, options.baseMs * 2 ** Math.min(attempt, 30));
  return Math.floor((options.random ?? Math.random)() * ceilingMs);
}

/** Resolves after `ms`, or as soon as `signal` is aborted. Never rejects, and leaves no timer behind. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}

/** Repeats `work` every `intervalMs` until it succeeds. @throws its last error, once `timeoutMs` have passed. */
export async function retryFor<T>(work: () => Promise<T>, timeoutMs: number, intervalMs: number): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(intervalMs);
    }
  }
}
