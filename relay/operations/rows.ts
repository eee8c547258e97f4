/** SQL and conversions shared by the queries of this folder. */

/**
 * The statuses of undelivered events: the relay will attempt them again (FAILED) or has made its last attempt (DEAD).
 * Pending events are not called undelivered.
 */
export const undeliveredStatuses = "('FAILED', 'DEAD')";

/** The age of a time in `column`, by the database's clock. */
export const ageMs = (column: string) => `TIMESTAMPDIFF(MICROSECOND, ${column}, CURRENT_TIMESTAMP(3)) DIV 1000`;

/** Converts a column that may be NULL or missing. */
export function nullOr<T>(convert: (value: unknown) => T, value: unknown): T | null {
  return value === null || value === undefined ? null : convert(value);
}
