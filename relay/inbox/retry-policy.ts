/**
 * Retries on the receiving side: of events, batches and redeliveries. All backoffs have full jitter.
 *
 * Elsewhere: `Database.transaction` repeats a transaction after a deadlock or a lock wait, and relay/kafka reconnects and
 * retries deferred records.
 */
export const inboxRetryPolicy = {
  /** An event that fails although it is alone in its transaction. */
  event: {
    /** Attempts before the event's key is parked. */
    attemptsMax: 3,
    /** The waits before its second and third attempt are at most 100 and 200 ms. */
    backoff: { baseMs: 50, maxMs: 500 },
  },
  /** Many keys fail one after the other: the service itself is probably broken. */
  circuitBreaker: {
    /** The circuit opens when this many different keys have failed in a row, with no success in between. */
    failingKeysToOpen: 5,
    /** How many other keys of a batch are probed while the circuit is open, in each attempt at the batch. */
    probesMax: 10,
  },
  /**
   * A partition's batch that fails because of an outage. It is attempted until it succeeds or the partition is lost, in
   * transactions of its own that are halved after each failure.
   */
  batch: {
    backoff: { baseMs: 50, maxMs: 2_000 },
    /** After a success that took less, the next transaction may be twice as large. */
    slowMs: 1_000,
    /** A partition whose batch takes longer no longer delays the fetches of the other partitions. */
    stepAsideAfterMs: 1_000,
  },
  /** A partition whose next batch of records cannot be decoded. */
  unreadablePartition: {
    /** How often it is read again. */
    retryMs: 5_000,
  },
  /** Parked keys whose redelivery an operator has requested. */
  redelivery: {
    /** How often the inbox checks for requests. */
    pollIntervalMs: 1_000,
    /** Added to the interval after an outage. */
    backoff: { baseMs: 2_000, maxMs: 30_000 },
    /** After this many keys have met an outage, the other keys wait for the next poll. */
    outagesMax: 5,
  },
} as const;
