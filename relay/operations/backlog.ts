import { readOwner, type SourceOwner } from "./owner.ts";
import { ageMs, nullOr, undeliveredStatuses } from "./rows.ts";
import type { OperatedSource } from "./source.ts";

/** How far behind a source is. Ages are measured by the database's clock. */
export interface Backlog {
  /**
   * Pending events whose key has no failed or dead event. Includes those whose key the relay holds for a newer schema: only
   * the relay knows these keys.
   */
  readonly pending: number;
  /** Pending events that wait behind a failed or dead event of their key. */
  readonly held: number;
  /** The age of the oldest event counted in `pending`; null if there is none. */
  readonly oldestPendingAgeMs: number | null;
  readonly failed: number;
  readonly dead: number;
  /** Keys with a failed or dead event. */
  readonly heldKeys: number;
  /** The connection that holds the source's lock; null if the lock is free. */
  readonly owner: SourceOwner | null;
  /** Averaged over the last 60 s, or over the last 20,000 events if those span less. */
  readonly publishedPerSecond: number;
}

const rateWindowSeconds = 60;
const rateSampleRows = 20_000;

/** Reads all pending rows: with millions of them this takes some seconds. */
export async function readBacklog(source: OperatedSource): Promise<Backlog> {
  const { database, outboxTable } = source;
  const [counts] = await database.query(
    `SELECT COUNT(*) - COUNT(held_key.aggregate_id) AS pending, COUNT(held_key.aggregate_id) AS held,
            ${ageMs("MIN(CASE WHEN held_key.aggregate_id IS NULL THEN event.occurred_at END)")} AS oldestPendingAgeMs
       FROM ${outboxTable} AS event
       LEFT JOIN (SELECT DISTINCT aggregate_id FROM ${outboxTable} WHERE status IN ${undeliveredStatuses}) AS held_key
         ON held_key.aggregate_id = event.aggregate_id
      WHERE event.status = 'PENDING'`,
  );
  const [failures] = await database.query(
    `SELECT COUNT(CASE WHEN status = 'FAILED' THEN 1 END) AS failed, COUNT(CASE WHEN status = 'DEAD' THEN 1 END) AS dead,
            COUNT(DISTINCT aggregate_id) AS heldKeys
       FROM ${outboxTable} WHERE status IN ${undeliveredStatuses}`,
  );
  return {
    pending: Number(counts?.pending),
    held: Number(counts?.held),
    oldestPendingAgeMs: nullOr(Number, counts?.oldestPendingAgeMs),
    failed: Number(failures?.failed),
    dead: Number(failures?.dead),
    heldKeys: Number(failures?.heldKeys),
    owner: await readOwner(source),
    publishedPerSecond: await readPublishRate(source),
  };
}

/** Samples the newest published rows: there may be millions of them, and `published_at` has no index. */
async function readPublishRate({ database, outboxTable }: OperatedSource): Promise<number> {
  const [sample] = await database.query(
    `SELECT COUNT(*) AS published, ${ageMs("MIN(recent.published_at)")} AS spanMs
       FROM (SELECT published_at FROM ${outboxTable} WHERE status = 'PUBLISHED' ORDER BY seq DESC LIMIT ?) AS recent
      WHERE recent.published_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND`,
    [rateSampleRows, rateWindowSeconds],
  );
  const published = Number(sample?.published);
  const isSampleFull = published === rateSampleRows;
  const seconds = isSampleFull ? Math.max(1, Number(sample?.spanMs)) / 1_000 : rateWindowSeconds;
  return Math.round((published / seconds) * 100) / 100;
}
