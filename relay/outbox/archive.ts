/**
 * Keeps the outbox small: published rows move to the archive after a while, and leave the archive after another. In small
 * batches with pauses between, off the way of what is being delivered.
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
  /** For an account that may read and delete in the outbox, and insert into the archive. */
  readonly database: Database;
  /** Rows that were published longer ago than this move. */
  readonly olderThanMs: number;
  /** Rows in one transaction. Default: 250 are moved, 500 deleted. */
  readonly batchSize?: number;
  /**
   * Between two transactions. Default 100 where rows are moved, so that what is being delivered has room: at most 2,500
   * rows a second. 50 where they are deleted: at most 10,000.
   */
  readonly pauseMs?: number;
  readonly signal?: AbortSignal;
}

const archiveDefaults = { batchSize: 250, pauseMs: 100 };

/** What an outbox row is, in the archive too. */
const columns =
  "id, aggregate_id, type, payload, headers, occurred_at, status, retry_count, last_error, published_at, seq";

/**
 * Moves all published rows that are old enough. Each batch is one transaction, so a crash neither loses nor doubles a
 * row; whatever was left goes with the next run. Several may run at once.
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

/** Moves one batch; tells how many rows. 0: the oldest ones are too young. */
async function archiveBatch(options: ArchiveOptions): Promise<number> {
  const { outboxTable, archiveTable } = options;
  return await options.database.transaction(async (transaction) => {
    // The oldest rows by `seq`, however many there are; by age they would have to be looked for.
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
      throw new Error(`${outboxTable}: ${inserted} rows into the archive, but ${deleted} out of the outbox.`);
    }
    return deleted;
  });
}

/** Deletes archived rows that have been there longer than `olderThanMs`, in small batches. */
export async function pruneArchive(options: ArchiveOptions): Promise<{ readonly deleted: number }> {
  return await deleteOldRows(options, options.archiveTable, "archived_at");
}

/** What lies where. */
export interface ArchiveStatus {
  /** Published rows that are still in the outbox. */
  readonly published: number;
  readonly archived: number;
  readonly discarded: number;
  /** The oldest published row in the outbox, by the database's clock. */
  readonly oldestPublishedAt: Date | undefined;
}

/** Counts: reads both tables' indexes whole, so it is for people, not for a schedule. */
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
