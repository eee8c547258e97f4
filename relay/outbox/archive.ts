/**
 * Keeps the outbox small: published rows move to the archive, and are deleted from there later. Both happen in small batches
 * with pauses between them, so that deliveries are not slowed down.
 */
import { sleep } from "../../services/kit/backoff.ts";
import type { Database } from "../../services/kit/database.ts";
import { deleteOldRows } from "../../services/kit/prune.ts";

/** One outbox and where its rows go. */
export interface ArchiveTables {
  readonly outboxTable: string;
  readonly archiveTable: string;
}

export interface ArchiveOptions extends ArchiveTables {
  /** Its account needs SELECT and DELETE on the outbox, and SELECT, INSERT and DELETE on the archive. */
  readonly database: Database;
  /** Only rows that were published (or, when pruning, archived) longer ago than this. */
  readonly olderThanMs: number;
  /** Rows in one transaction. Default 250 to move. */
  readonly batchSize?: number;
  /**
   * Pause between two transactions. Default 100 to move, which leaves room for deliveries: at most 2,500 rows a second. The
   * defaults to delete are in services/kit/prune.ts.
   */
  readonly pauseMs?: number;
  readonly signal?: AbortSignal;
}

const archiveDefaults = { batchSize: 250, pauseMs: 100 };

/** The columns that outbox and archive share. */
const columns =
  "id, aggregate_id, type, payload, headers, occurred_at, status, retry_count, last_error, published_at, seq";

/**
 * Moves published rows to the archive in `seq` order, until a batch has none that is old enough. Each batch is one
 * transaction, so a crash neither loses nor duplicates a row, and the next run moves the rest. Several runs may work at once.
 */
export async function runArchive(options: ArchiveOptions): Promise<{ readonly moved: number }> {
  let moved = 0;
  for (;;) {
    const count = await archiveBatch(options);
    moved += count;
    if (count === 0 || options.signal?.aborted) return { moved };
    await sleep(options.pauseMs ?? archiveDefaults.pauseMs, options.signal);
  }
}

/** Moves one batch and returns its number of rows. 0: of the first rows that no other run has locked, none is old enough. */
async function archiveBatch(options: ArchiveOptions): Promise<number> {
  const { outboxTable, archiveTable } = options;
  return await options.database.transaction(async (transaction) => {
    // The oldest rows by `seq`, because there is no index on their age.
    const rows = await transaction.query<{ id: string; isOld: number }>(
      `SELECT id, published_at < CURRENT_TIMESTAMP(3) - INTERVAL ? MICROSECOND AS isOld FROM ${outboxTable}
        WHERE status = 'PUBLISHED' ORDER BY seq LIMIT ? FOR UPDATE SKIP LOCKED`,
      [options.olderThanMs * 1_000, options.batchSize ?? archiveDefaults.batchSize],
    );
    const ids = rows.filter((row) => row.isOld === 1).map((row) => row.id);
    if (ids.length === 0) return 0;
    const inserted = await transaction.execute(
      `INSERT INTO ${archiveTable} (${columns}) SELECT ${columns} FROM ${outboxTable}
        WHERE id IN (?) AND status = 'PUBLISHED'`,
      [ids],
    );
    const deleted = await transaction.execute(`DELETE FROM ${outboxTable} WHERE id IN (?) AND status = 'PUBLISHED'`, [
      ids,
    ]);
    if (inserted !== deleted) {
      throw new Error(`${outboxTable}: ${inserted} rows inserted into the archive, but ${deleted} deleted here.`);
    }
    return deleted;
  });
}

/** Deletes rows that have been in the archive for longer than `olderThanMs`, in small batches. */
export async function pruneArchive(options: ArchiveOptions): Promise<{ readonly deleted: number }> {
  return await deleteOldRows(options, options.archiveTable, "archived_at");
}

/** How many rows outbox and archive hold. */
export interface ArchiveStatus {
  /** Published rows that are still in the outbox. */
  readonly published: number;
  readonly archived: number;
  readonly discarded: number;
  /** When the oldest published row of the outbox was published, by the database's clock. */
  readonly oldestPublishedAt: Date | undefined;
}

/** Counts the rows. It scans an index of each table, so call it for an operator, not at regular intervals. */
export async function archiveStatus(
  database: Pick<Database, "query">,
  { outboxTable, archiveTable }: ArchiveTables,
): Promise<ArchiveStatus> {
  const [counts] = await database.query<{ published: number; archived: number; discarded: number }>(
    `SELECT (SELECT COUNT(*) FROM ${outboxTable} WHERE status = 'PUBLISHED') AS published,
            (SELECT COUNT(*) FROM ${archiveTable} WHERE status <> 'DISCARDED') AS archived,
            (SELECT COUNT(*) FROM ${archiveTable} WHERE status = 'DISCARDED') AS discarded`,
  );
  const [oldest] = await database.query<{ publishedAt: Date | null }>(
    `SELECT published_at AS publishedAt FROM ${outboxTable} WHERE status = 'PUBLISHED' ORDER BY seq LIMIT 1`,
  );
  return {
    published: Number(counts?.published ?? 0),
    archived: Number(counts?.archived ?? 0),
    discarded: Number(counts?.discarded ?? 0),
    oldestPublishedAt: oldest?.publishedAt ?? undefined,
  };
}
