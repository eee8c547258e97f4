/**
 * Retries on the outbox side: how often the relay attempts an event that has a fault, and how long it waits before each
 * attempt and during an outage. The times of the ownership protocol are in ownership-times.ts.
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

/** How long the relay waits before it attempts a schema-behind event again. */
export const schemaBehindHoldMs = 10_000;

/** Full-jitter backoff between two passes while the database or the broker is unreachable. */
export const outageBackoff = { baseMs: 100, maxMs: 2_000 };

/** How long a poison event waits after a failed attempt. @param failedAttempts how many attempts had failed before that. */
export function retryDelayMs(failedAttempts: number, { baseMs, maxMs }: RetryBackoff): number {
  return Math.min(maxMs, baseMs * 2 ** Math.min(failedAttempts, 30));
}
