/** SQL and conversions shared by the queries of this folder. */

/** The statuses of events that could not be delivered: the relay will try again (FAILED) or has given up (DEAD). */
export const undeliveredStatuses = "('FAILED', 'DEAD')";

/** The age of a time in `column`, by the database's clock. */
export const ageMs = (column: string) => `TIMESTAMPDIFF(MICROSECOND, ${column}, CURRENT_TIMESTAMP(3)) DIV 1000`;

/** Converts a column that may be NULL or missing. */
export function nullOr<T>(convert: (value: unknown) => T, value: unknown): T | null {
  return value === null || value === undefined ? null : convert(value);
}
