/** Measures time by two clocks, for locks that must not outlive their owner's right to them. */

/** A point in time on this process's two clocks. */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export const now = (): Instant => ({ monotonicMs: performance.now(), wallMs: Date.now() });

/**
 * The time since then, by whichever clock measured more: the monotonic clock may stop while the machine sleeps, and the
 * wall clock may be set back.
 */
export function elapsedMs(since: Instant): number {
  return Math.max(performance.now() - since.monotonicMs, Date.now() - since.wallMs);
}
