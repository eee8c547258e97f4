/**
 * What an operator does with a source: see how far behind it is, look at the events that could not be delivered, and
 * let them be tried again or give them up. Statuses are compared in the statement that changes them, so that the relay
 * at work beside it is never overruled by what an operator saw a moment ago.
 */
import type { Queryable, Row, Transaction } from "../../services/kit/database.ts";
import { DomainError } from "../../services/kit/errors.ts";
import { lockNameOf } from "../outbox/ownership.ts";
import type { OutboxStatus } from "../tables.ts";
import { ensureAuditTable, type OperatedSource, type OperatorCommand, recordCommand } from "./audit-log.ts";

/** How far a source is behind. Ages are by the database's clock. */
export interface Backlog {
  /** Events that wait for nothing but the relay. */
  readonly pending: number;
  /** Events that wait behind a failed or dead one of their key. */
  readonly held: number;
  /** Of the oldest event that is pending and not held; null where there is none. */
  readonly oldestPendingAgeMs: number | null;
  readonly failed: number;
  readonly dead: number;
  /** Keys with a failed or dead event. */
  readonly heldKeys: number;
  /** Who holds the source's lock; null where nobody does. */
  readonly owner: SourceOwner | null;
  /** Over the last 60 s, or over the time of the last 20,000 events where that is less. */
  readonly publishedPerSecond: number;
}

/** The connection that holds a source's lock. User and host are null where this account may not see them. */
export interface SourceOwner {
  readonly connectionId: number;
  readonly user: string | null;
  /** The client's address, as the server sees it. */
  readonly host: string | null;
}

/** An event that could not be delivered, in a line. */
export interface UndeliveredEvent {
  readonly source: string;
  readonly id: string;
  readonly key: string;
  readonly type: string;
  readonly status: OutboxStatus;
  readonly retryCount: number;
  readonly lastError: string | null;
  /** Since it occurred, by the database's clock. */
  readonly ageMs: number;
}

/** All that is known of an event. */
export interface EventDetails extends UndeliveredEvent {
  /** Whether it is in the outbox still. */
  readonly table: "outbox" | "archive";
  /** Decimal. */
  readonly seq: string;
  readonly occurredAt: Date;
  readonly publishedAt: Date | null;
  /** When a failed one is tried again. */
  readonly nextAttemptAt: Date | null;
  readonly archivedAt: Date | null;
  readonly discardedBy: string | null;
  readonly discardReason: string | null;
  /** Later events of its key that are pending: they wait for it where it is failed or dead. */
  readonly laterPending: number;
  /** As it stands in the table: JSON. */
  readonly headers: string | null;
  /** As it stands in the table: JSON, unless that is what is wrong with it. */
  readonly payload: string;
}

/** How many undelivered events are listed at the most. */
export const listRowsMax = 1_000;
/** The width of the archive's column. */
export const discardReasonLengthMax = 500;
const rateWindowSeconds = 60;
const rateSampleRows = 20_000;

const undelivered = "('FAILED', 'DEAD')";
const ageMs = (column: string) => `TIMESTAMPDIFF(MICROSECOND, ${column}, CURRENT_TIMESTAMP(3)) DIV 1000`;

/** Looks at one source. Reads the pending rows, so with millions of them it takes some seconds. */
export async function readBacklog(source: OperatedSource): Promise<Backlog> {
  const { database, outboxTable } = source;
  const [counts] = await database.query(
    `SELECT COUNT(*) - COUNT(frozen.aggregate_id) AS pending, COUNT(frozen.aggregate_id) AS held,
            ${ageMs("MIN(CASE WHEN frozen.aggregate_id IS NULL THEN event.occurred_at END)")} AS oldestPendingAgeMs
       FROM ${outboxTable} AS event
       LEFT JOIN (SELECT DISTINCT aggregate_id FROM ${outboxTable} WHERE status IN ${undelivered}) AS frozen
         ON frozen.aggregate_id = event.aggregate_id
      WHERE event.status = 'PENDING'`,
  );
  const [frozen] = await database.query(
    `SELECT COUNT(CASE WHEN status = 'FAILED' THEN 1 END) AS failed, COUNT(CASE WHEN status = 'DEAD' THEN 1 END) AS dead,
            COUNT(DISTINCT aggregate_id) AS heldKeys
       FROM ${outboxTable} WHERE status IN ${undelivered}`,
  );
  return {
    pending: Number(counts?.pending),
    held: Number(counts?.held),
    oldestPendingAgeMs: nullOr(Number, counts?.oldestPendingAgeMs),
    failed: Number(frozen?.failed),
    dead: Number(frozen?.dead),
    heldKeys: Number(frozen?.heldKeys),
    owner: await readOwner(source),
    publishedPerSecond: await readPublishRate(source),
  };
}

/** By the newest published rows: there is no index on the time, and a source may have millions of them. */
async function readPublishRate({ database, outboxTable }: OperatedSource): Promise<number> {
  const [sample] = await database.query(
    `SELECT COUNT(*) AS published, ${ageMs("MIN(recent.published_at)")} AS spanMs
       FROM (SELECT published_at FROM ${outboxTable} WHERE status = 'PUBLISHED' ORDER BY seq DESC LIMIT ?) AS recent
      WHERE recent.published_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND`,
    [rateSampleRows, rateWindowSeconds],
  );
  const published = Number(sample?.published);
  const isCut = published === rateSampleRows;
  const seconds = isCut ? Math.max(1, Number(sample?.spanMs)) / 1_000 : rateWindowSeconds;
  return Math.round((published / seconds) * 100) / 100;
}

/** Who holds the source's lock, as far as this account may see it. */
export async function readOwner({ database, schema, outboxTable }: OperatedSource): Promise<SourceOwner | null> {
  const [lock] = await database.query("SELECT IS_USED_LOCK(?) AS connectionId", [lockNameOf(schema, outboxTable)]);
  if (lock?.connectionId == null) return null;
  const connectionId = Number(lock.connectionId);
  // Without the right to see other accounts' connections there is no such row; some servers refuse altogether.
  const [process] = await database
    .query("SELECT USER AS user, HOST AS host FROM information_schema.PROCESSLIST WHERE ID = ?", [connectionId])
    .catch(() => []);
  return { connectionId, user: nullOr(String, process?.user), host: nullOr(String, process?.host) };
}

/** `connection 7 of relay@10.0.0.5:4711`, as far as it is known. */
export function describeOwner({ connectionId, user, host }: SourceOwner): string {
  return `connection ${connectionId}${user === null ? "" : ` of ${user}@${host ?? "?"}`}`;
}

/** The dead events in `seq` order, at most {@link listRowsMax} + 1 of them; with `failed` also those tried again later. */
export async function listUndelivered(
  source: OperatedSource,
  options: { readonly failed: boolean },
): Promise<readonly UndeliveredEvent[]> {
  const rows = await source.database.query(
    `SELECT event.id, event.aggregate_id AS \`key\`, event.type, event.status, event.retry_count AS retryCount,
            event.last_error AS lastError, ${ageMs("event.occurred_at")} AS ageMs
       FROM ${source.outboxTable} AS event WHERE event.status IN (?) ORDER BY event.seq LIMIT ?`,
    [options.failed ? ["FAILED", "DEAD"] : ["DEAD"], listRowsMax + 1],
  );
  return rows.map((row) => toUndelivered(source, row));
}

function toUndelivered(source: OperatedSource, row: Row): UndeliveredEvent {
  return {
    source: source.name,
    id: String(row.id),
    key: String(row.key),
    type: String(row.type),
    status: String(row.status) as OutboxStatus,
    retryCount: Number(row.retryCount),
    lastError: nullOr(String, row.lastError),
    ageMs: Number(row.ageMs),
  };
}

/** All that is known of an event, whatever its status, from outbox or archive; undefined where the source has none. */
export async function findEvent(source: OperatedSource, id: string): Promise<EventDetails | undefined> {
  const { database, outboxTable, archiveTable } = source;
  const columns = `event.id, event.aggregate_id AS \`key\`, event.type, event.payload, event.headers, event.status,
    event.occurred_at AS occurredAt, event.retry_count AS retryCount, event.last_error AS lastError,
    event.published_at AS publishedAt, CAST(event.seq AS CHAR) AS seq, ${ageMs("event.occurred_at")} AS ageMs`;
  const [inOutbox] = await database.query(
    `SELECT ${columns}, event.next_attempt_at AS nextAttemptAt,
            (SELECT COUNT(*) FROM ${outboxTable} AS later
              WHERE later.aggregate_id = event.aggregate_id AND later.seq > event.seq AND later.status = 'PENDING')
            AS laterPending
       FROM ${outboxTable} AS event WHERE event.id = ?`,
    [id],
  );
  // Asked second: on its way from the one to the other it cannot be missed.
  const inArchive = async () =>
    await database.query(
      `SELECT ${columns}, event.archived_at AS archivedAt, event.discarded_by AS discardedBy,
              event.discard_reason AS discardReason, 0 AS laterPending
         FROM ${archiveTable} AS event WHERE event.id = ?`,
      [id],
    );
  const row = inOutbox ?? (await inArchive())[0];
  if (row === undefined) return undefined;
  return {
    ...toUndelivered(source, row),
    table: inOutbox === undefined ? "archive" : "outbox",
    seq: String(row.seq),
    occurredAt: row.occurredAt as Date,
    publishedAt: (row.publishedAt ?? null) as Date | null,
    nextAttemptAt: (row.nextAttemptAt ?? null) as Date | null,
    archivedAt: (row.archivedAt ?? null) as Date | null,
    discardedBy: nullOr(String, row.discardedBy),
    discardReason: nullOr(String, row.discardReason),
    laterPending: Number(row.laterPending),
    headers: nullOr(String, row.headers),
    payload: String(row.payload),
  };
}

/** What is written down of an event that an operator changed. */
export interface ChangedEvent {
  readonly id: string;
  readonly key: string;
  readonly type: string;
  readonly seq: string;
  /** Before the change. */
  readonly status: OutboxStatus;
  readonly retryCount: number;
  readonly lastError: string | null;
}

/**
 * Lets a failed or dead event be tried again at once, with all its attempts before it. Later events of its key are
 * still pending behind it, so the key's order holds.
 * @throws DomainError NOT_FOUND, or FAILED_PRECONDITION when it is neither failed nor dead.
 */
export async function retryEvent(source: OperatedSource, id: string, command: OperatorCommand): Promise<ChangedEvent> {
  await ensureAuditTable(source.database);
  return await source.database.transaction(async (transaction) => {
    const event = await lockUndelivered(transaction, source, id);
    await transaction.execute(
      `UPDATE ${source.outboxTable} SET status = 'PENDING', retry_count = 0, next_attempt_at = NULL
        WHERE id = ? AND status IN ${undelivered}`,
      [id],
    );
    await recordCommand(transaction, command, { retried: 1, event });
    return event;
  });
}

/** The number of failed and dead events. */
export async function countUndelivered({ database, outboxTable }: OperatedSource): Promise<number> {
  const [row] = await database.query(`SELECT COUNT(*) AS events FROM ${outboxTable} WHERE status IN ${undelivered}`);
  return Number(row?.events);
}

/** {@link retryEvent} for all failed and dead events of a source. Returns how many there were. */
export async function retryAll(source: OperatedSource, command: OperatorCommand): Promise<number> {
  await ensureAuditTable(source.database);
  return await source.database.transaction(async (transaction) => {
    const retried = await transaction.execute(
      `UPDATE ${source.outboxTable} SET status = 'PENDING', retry_count = 0, next_attempt_at = NULL
        WHERE status IN ${undelivered}`,
    );
    await recordCommand(transaction, command, { retried });
    return retried;
  });
}

/**
 * Gives a failed or dead event up: it moves to the archive as DISCARDED, with who and why, and its key goes on without
 * it.
 * @throws DomainError INVALID_ARGUMENT for a bad reason, NOT_FOUND, or FAILED_PRECONDITION when it is neither failed nor dead.
 */
export async function discardEvent(
  source: OperatedSource,
  id: string,
  command: OperatorCommand & { readonly reason: string },
): Promise<ChangedEvent> {
  const { reason, operator } = command;
  if (reason.trim() === "" || reason.length > discardReasonLengthMax) {
    throw new DomainError("INVALID_ARGUMENT", `The reason must have 1 to ${discardReasonLengthMax} characters.`);
  }
  await ensureAuditTable(source.database);
  const { outboxTable, archiveTable } = source;
  const moved = "id, aggregate_id, type, payload, headers, occurred_at, retry_count, last_error, published_at, seq";
  return await source.database.transaction(async (transaction) => {
    const event = await lockUndelivered(transaction, source, id);
    await transaction.execute(
      `INSERT INTO ${archiveTable} (${moved}, status, discarded_by, discard_reason)
       SELECT ${moved}, 'DISCARDED', ?, ? FROM ${outboxTable} WHERE id = ? AND status IN ${undelivered}`,
      [operator, reason, id],
    );
    const removed = await transaction.execute(`DELETE FROM ${outboxTable} WHERE id = ? AND status IN ${undelivered}`, [
      id,
    ]);
    if (removed !== 1) throw new Error(`${id} was not as it had been read.`);
    await recordCommand(transaction, command, { discarded: 1, event });
    return event;
  });
}

async function lockUndelivered(transaction: Transaction, source: OperatedSource, id: string): Promise<ChangedEvent> {
  const [row] = await transaction.query(
    `SELECT id, aggregate_id AS \`key\`, type, CAST(seq AS CHAR) AS seq, status, retry_count AS retryCount,
            last_error AS lastError
       FROM ${source.outboxTable} WHERE id = ? FOR UPDATE`,
    [id],
  );
  if (row === undefined) throw new DomainError("NOT_FOUND", `${source.name} has no event ${id} in its outbox.`);
  const event = {
    id: String(row.id),
    key: String(row.key),
    type: String(row.type),
    seq: String(row.seq),
    status: String(row.status) as OutboxStatus,
    retryCount: Number(row.retryCount),
    lastError: nullOr(String, row.lastError),
  };
  requireUndelivered(event);
  return event;
}

/** @throws DomainError FAILED_PRECONDITION for an event that is not for an operator to change. */
export function requireUndelivered({ id, status }: Pick<ChangedEvent, "id" | "status">): void {
  if (status === "FAILED" || status === "DEAD") return;
  throw new DomainError(
    "FAILED_PRECONDITION",
    `The event ${id} is ${status}: only what is FAILED or DEAD can be tried again or discarded.`,
  );
}

/** The database's time, which is what decides here. */
export async function databaseNow(database: Queryable): Promise<Date> {
  const [row] = await database.query<{ now: Date }>("SELECT CURRENT_TIMESTAMP(3) AS now");
  if (row === undefined) throw new Error("The database did not tell its time.");
  return row.now;
}

function nullOr<T>(convert: (value: unknown) => T, value: unknown): T | null {
  return value === null || value === undefined ? null : convert(value);
}
