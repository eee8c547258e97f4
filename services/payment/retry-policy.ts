/** How long Payment's worker waits before it tries again. It never gives up: an unknown payment must become known. */
export const paymentRetryPolicy = {
  /** Between two attempts at one gateway call. */
  call: { baseMs: 100, maxMs: 5_000 },
  /** No call at all after a 429, for at least its Retry-After; longer after several in a row. */
  throttle: { baseMs: 100, maxMs: 5_000 },
  /** Between two attempts at recording an outcome. */
  record: { baseMs: 50, maxMs: 1_000 },
  /** Between two attempts at claiming, while the database is away. */
  claim: { baseMs: 50, maxMs: 1_000 },
} as const;
