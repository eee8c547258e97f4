/**
 * Keeps the outbox small: published rows move to the archive, and are deleted from there later. Both happen in small batches
 * with pauses between them, so that deliveries are not slowed down.
 */
import type { Database } from "../../services/kit/database.ts";
import { startPace } from "../../services/kit/pace.ts";
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
   * defaults to delete are in services/kit/prune.ts. A run that is behind pauses less.
   */
  readonly pauseMs?: number;
  /** A run that takes longer is behind: the relay publishes more than it archives. Default 60,000: see pace.ts. */
  readonly behindAfterMs?: number;
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
  const pace = startPace({ ...options, pauseMs: options.pauseMs ?? archiveDefaults.pauseMs });
  let moved = 0;
  let afterSeq = "0";
  for (;;) {
    const batch = await archiveBatch(options, afterSeq);
    moved += batch.moved;
    if (batch.isLast || options.signal?.aborted) return { moved };
    afterSeq = batch.lastSeq;
    await pace();
  }
}

interface ArchivedBatch {
  readonly moved: number;
  /** Where the next batch goes on. */
  readonly lastSeq: string;
  /** Whether no later row that is not locked by another run is old enough. */
  readonly isLast: boolean;
}

/** Of the next published rows after `afterSeq` that no other run has locked, moves those that are old enough. */
async function archiveBatch(options: ArchiveOptions, afterSeq: string): Promise<ArchivedBatch> {
  const { outboxTable, archiveTable } = options;
  const batchSize = options.batchSize ?? archiveDefaults.batchSize;
  return await options.database.transaction(async (transaction) => {
    // The oldest rows by `seq`, because there is no index on their age. A row that waited long before it was published is
    // not old enough yet, although later rows are.
    const ageUs = options.olderThanMs * 1_000;
    const rows = await transaction.query<{ id: string; lastSeq: string; isOld: number; isRecent: number }>(
      `SELECT id, CAST(seq AS CHAR) AS lastSeq, published_at < CURRENT_TIMESTAMP(3) - INTERVAL ? MICROSECOND AS isOld,
              occurred_at >= CURRENT_TIMESTAMP(3) - INTERVAL ? MICROSECOND AS isRecent
         FROM ${outboxTable}
        WHERE status = 'PUBLISHED' AND seq > CAST(? AS UNSIGNED) ORDER BY seq LIMIT ? FOR UPDATE SKIP LOCKED`,
      [ageUs, ageUs, afterSeq, batchSize],
    );
    const last = rows.at(-1);
    const lastSeq = last?.lastSeq ?? afterSeq;
    const ids = rows.filter((row) => row.isOld === 1).map((row) => row.id);
    // After a row that occurred too recently, all did, and none was published before it occurred.
    if (ids.length === 0) return { moved: 0, lastSeq, isLast: rows.length < batchSize || last?.isRecent === 1 };
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
    return { moved: deleted, lastSeq, isLast: rows.length < batchSize };
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
