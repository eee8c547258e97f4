import { sleep } from "./backoff.ts";

/**
 * Resolves to the result of the first attempt that succeeds. Each attempt begins once all before it have failed, or after
 * `delayMs`. The results of others that succeed too are passed to `discard`.
 * @throws the error of the first attempt if none succeeds.
 */
export async function hedge<T>(
  attempts: readonly [() => Promise<T>, ...(() => Promise<T>)[]],
  delayMs: number,
  discard: (result: T) => void,
): Promise<T> {
  const running: Promise<T>[] = [];
  for (const attempt of attempts) {
    const current = attempt();
    current.catch(() => undefined);
    running.push(current);
    if (running.length === attempts.length) break;
    const isDecided = new AbortController();
    const success = Promise.any(running).then(
      () => true,
      () => false,
    );
    const hasSucceeded = await Promise.race([success, sleep(delayMs, isDecided.signal).then(() => false)]);
    isDecided.abort();
    if (hasSucceeded) break;
  }
  try {
    const result = await Promise.any(running);
    for (const other of running) other.then((it) => it !== result && discard(it)).catch(() => undefined);
    return result;
  } catch {
    return await (running[0] as Promise<T>);
  }
}
