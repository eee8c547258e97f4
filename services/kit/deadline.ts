/**
 * Settles as `work` does, or rejects after `deadlineMs` with the error that `late` returns. What has arrived by then is in
 * time, even if the process was too busy to look at it. The work itself goes on; if it can be stopped, stop it in `late`. If it
 * fails after the deadline, that failure is dropped.
 */
export async function withDeadline<T>(work: Promise<T>, deadlineMs: number, late: () => Error): Promise<T> {
  const expired = Promise.withResolvers<never>();
  let isSettled = false;
  const expire = () => {
    if (!isSettled) expired.reject(late());
  };
  // Timers run before what has arrived is read, so a busy process reads first.
  const timer = setTimeout(() => setImmediate(() => setImmediate(expire)), deadlineMs);
  work.catch(() => undefined);
  try {
    return await Promise.race([work, expired.promise]);
  } finally {
    isSettled = true;
    clearTimeout(timer);
  }
}

/**
 * Waits at most `waitMs` for `work` and returns whether it ended in time. The work itself goes on.
 * @throws what `work` throws in that time.
 */
export async function endsWithin(work: Promise<unknown>, waitMs: number): Promise<boolean> {
  const late = new Error(`Not done after ${waitMs} ms.`);
  try {
    await withDeadline(work, waitMs, () => late);
    return true;
  } catch (error) {
    if (error === late) return false;
    throw error;
  }
}
