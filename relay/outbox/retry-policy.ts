/**
 * Every setting of retry and patience on the outbox side: how often the relay attempts an event that has a fault, and how
 * long it waits before each attempt and during an outage.
 */

/** Waits between two attempts at a poison event. They double from `baseMs` up to `maxMs`, by the database's clock. */
export interface RetryBackoff {
  readonly baseMs: number;
  readonly maxMs: number;
}

/** Attempts at a poison event before it is DEAD, unless RELAY_ATTEMPTS_MAX says otherwise. */
export const attemptsMaxDefault = 10;

/** Unless RELAY_RETRY_BASE_MS and RELAY_RETRY_MAX_MS say otherwise. */
export const retryBackoffDefault: RetryBackoff = { baseMs: 1_000, maxMs: 300_000 };

/** How long an event waits whose schema is newer than the relay's, before the relay attempts it again. */
export const schemaBehindHoldMs = 10_000;

/** Full-jitter backoff between two passes while the database or the broker is away. */
export const outageBackoff = { baseMs: 100, maxMs: 2_000 };

/** How long a poison event waits after a failed attempt. @param retryCount how many attempts had failed before that. */
export function retryDelayMs(retryCount: number, { baseMs, maxMs }: RetryBackoff): number {
  return Math.min(maxMs, baseMs * 2 ** Math.min(retryCount, 30));
}
