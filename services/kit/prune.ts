import type { Database } from "./database.ts";
import { startPace } from "./pace.ts";

/** Which rows are old enough to delete, and how fast to delete them. */
export interface PruneOptions {
  readonly database: Database;
  readonly olderThanMs: number;
  /** Rows deleted per transaction. Default 500. */
  readonly batchSize?: number;
  /** Pause between two transactions. Default 50, so at most 10,000 rows a second until the run is behind. */
  readonly pauseMs?: number;
  /** A run that takes longer is behind, and pauses less. Default 60,000: see pace.ts. */
  readonly behindAfterMs?: number;
  readonly signal?: AbortSignal;
}

/** Deletes are cheaper than moves and must keep up with inserts. */
const defaults = { batchSize: 500, pauseMs: 50 };

/**
 * Deletes the rows of `table` whose timestamp `column` is older than `olderThanMs`, oldest first. Small transactions with
 * pauses between them keep other users of the table from waiting. Stops early when `signal` is aborted.
 * @param condition SQL that a row must also meet to be deleted. Default: none.
 */
export async function deleteOldRows(
  options: PruneOptions,
  table: string,
  column: string,
  condition = "TRUE",
): Promise<{ readonly deleted: number }> {
  const pace = startPace({ ...options, pauseMs: options.pauseMs ?? defaults.pauseMs });
  let deleted = 0;
  for (;;) {
    const count = await options.database.execute(
      `DELETE FROM ${table} WHERE ${column} < CURRENT_TIMESTAMP(3) - INTERVAL ? MICROSECOND AND ${condition}
        ORDER BY ${column} LIMIT ?`,
      [options.olderThanMs * 1_000, options.batchSize ?? defaults.batchSize],
    );
    deleted += count;
    if (count === 0 || options.signal?.aborted) return { deleted };
    await pace();
  }
}
