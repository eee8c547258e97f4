/**
 * Resolves or rejects as `work` does, or rejects after `deadlineMs` with what `late` makes. The work goes on: whoever can
 * stop it does so in `late`. Its own failure after the deadline is dropped.
 */
export async function withDeadline<T>(work: Promise<T>, deadlineMs: number, late: () => Error): Promise<T> {
  const expired = Promise.withResolvers<never>();
  const timer = setTimeout(() => expired.reject(late()), deadlineMs);
  work.catch(() => undefined);
  try {
    return await Promise.race([work, expired.promise]);
  } finally {
    clearTimeout(timer);
  }
}
