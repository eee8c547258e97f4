/**
 * How often the receiving side tries again, how long it waits, and when it gives up: every such setting is here.
 *
 * One kind of retry is not: `Database.transaction` itself repeats a transaction after a deadlock or a lock wait.
 */
export const inboxRetryPolicy = {
  /** An event that fails although it is alone in its transaction. */
  event: {
    /** Attempts before the event's key is parked. */
    attemptsMax: 3,
    backoff: { baseMs: 50, maxMs: 500 },
  },
  /** Many keys fail one after the other: the consumer itself is probably broken. */
  circuitBreaker: {
    /** Different keys that fail in a row, with no success in between, and so open the circuit. */
    failingKeysMax: 5,
    /** Other keys of a batch that are tried while the circuit is open, in each attempt at the batch. */
    probesMax: 10,
  },
  /** A batch that fails because of an outage. It is tried until it succeeds or the partition is lost. */
  batch: {
    backoff: { baseMs: 50, maxMs: 2_000 },
  },
  /** Parked keys whose redelivery an operator has requested. */
  redelivery: {
    /** How often requests are looked for. */
    pollIntervalMs: 1_000,
    /** Added to the interval after an outage. */
    backoff: { baseMs: 2_000, maxMs: 30_000 },
    /** Keys that fail by an outage before the rest waits for the next poll. */
    outagesMax: 5,
  },
} as const;
