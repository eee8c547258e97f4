/**
 * Lists the events that could not be delivered, retries them or discards them. The relay works at the same time: each
 * statement that changes a row checks its status again, so a command never acts on an outdated status.
 */
import type { Row, Transaction } from "../../services/kit/database.ts";
import { DomainError } from "../../services/kit/errors.ts";
import type { OutboxStatus } from "../tables.ts";
import { ensureAuditTable, type OperatorCommand, recordCommand } from "./audit-log.ts";
import { ageMs, nullOr, undeliveredStatuses } from "./rows.ts";
import type { OperatedSource } from "./source.ts";

/** A summary of an event that could not be delivered. */
export interface UndeliveredEvent {
  readonly source: string;
  readonly id: string;
  readonly key: string;
  readonly type: string;
  readonly status: OutboxStatus;
  readonly retryCount: number;
  readonly lastError: string | null;
  /** Time since the event occurred, by the database's clock. */
  readonly ageMs: number;
}

/** Everything that a source stores about an event. */
export interface EventDetails extends UndeliveredEvent {
  /** Where the event is now. */
  readonly table: "outbox" | "archive";
  /** Decimal. */
  readonly seq: string;
  readonly occurredAt: Date;
  readonly publishedAt: Date | null;
  /** When the relay attempts a failed event again. */
  readonly nextAttemptAt: Date | null;
  readonly archivedAt: Date | null;
  readonly discardedBy: string | null;
  readonly discardReason: string | null;
  /** Number of pending later events of its key. They wait for it if it is failed or dead. */
  readonly laterPending: number;
  /** JSON, as stored. */
  readonly headers: string | null;
  /** As stored: JSON, unless malformed JSON is the reason why it could not be delivered. */
  readonly payload: string;
}

/** At most this many undelivered events are listed. */
export const listRowsMax = 1_000;
/** The width of the archive's `discard_reason` column. */
const discardReasonLengthMax = 500;

/**
 * The dead events in `seq` order; with `withFailed`, the failed events too, which the relay will attempt again. Returns one
 * event more than {@link listRowsMax} if there are more.
 */
export async function listUndelivered(
  source: OperatedSource,
  options: { readonly withFailed: boolean },
): Promise<readonly UndeliveredEvent[]> {
  const rows = await source.database.query(
    `SELECT event.id, event.aggregate_id AS \`key\`, event.type, event.status, event.retry_count AS retryCount,
            event.last_error AS lastError, ${ageMs("event.occurred_at")} AS ageMs
       FROM ${source.outboxTable} AS event WHERE event.status IN (?) ORDER BY event.seq LIMIT ?`,
    [options.withFailed ? ["FAILED", "DEAD"] : ["DEAD"], listRowsMax + 1],
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

/** Finds an event of any status in outbox or archive; undefined if the source has no event with this id. */
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
  // Reads the archive second, so that an event that moves there in between is found.
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

/** What the audit log keeps about an event that an operator changed. */
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
 * Makes a failed or dead event pending again and resets its attempts. Later events of its key are still
 * pending behind it, so the order of the key holds.
 * @throws DomainError NOT_FOUND; FAILED_PRECONDITION if the event is neither failed nor dead.
 */
export async function retryEvent(source: OperatedSource, id: string, command: OperatorCommand): Promise<ChangedEvent> {
  await ensureAuditTable(source.database);
  return await source.database.transaction(async (transaction) => {
    const event = await lockUndelivered(transaction, source, id);
    await transaction.execute(
      `UPDATE ${source.outboxTable} SET status = 'PENDING', retry_count = 0, next_attempt_at = NULL
        WHERE id = ? AND status IN ${undeliveredStatuses}`,
      [id],
    );
    await recordCommand(transaction, command, { retried: 1, event });
    return event;
  });
}

/** The number of failed and dead events. */
export async function countUndelivered({ database, outboxTable }: OperatedSource): Promise<number> {
  const [row] = await database.query(
    `SELECT COUNT(*) AS events FROM ${outboxTable} WHERE status IN ${undeliveredStatuses}`,
  );
  return Number(row?.events);
}

/** Does the same as {@link retryEvent} for all failed and dead events of a source. Returns how many there were. */
export async function retryAll(source: OperatedSource, command: OperatorCommand): Promise<number> {
  await ensureAuditTable(source.database);
  return await source.database.transaction(async (transaction) => {
    const retried = await transaction.execute(
      `UPDATE ${source.outboxTable} SET status = 'PENDING', retry_count = 0, next_attempt_at = NULL
        WHERE status IN ${undeliveredStatuses}`,
    );
    await recordCommand(transaction, command, { retried });
    return retried;
  });
}

/**
 * Discards a failed or dead event: it moves to the archive as DISCARDED, with the operator and the reason, and later
 * events of its key are delivered without it.
 * @throws DomainError INVALID_ARGUMENT if the reason is empty or too long; NOT_FOUND; FAILED_PRECONDITION if the event
 *   is neither failed nor dead.
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
  const columns = "id, aggregate_id, type, payload, headers, occurred_at, retry_count, last_error, published_at, seq";
  return await source.database.transaction(async (transaction) => {
    const event = await lockUndelivered(transaction, source, id);
    await transaction.execute(
      `INSERT INTO ${archiveTable} (${columns}, status, discarded_by, discard_reason)
       SELECT ${columns}, 'DISCARDED', ?, ? FROM ${outboxTable} WHERE id = ? AND status IN ${undeliveredStatuses}`,
      [operator, reason, id],
    );
    const deleted = await transaction.execute(
      `DELETE FROM ${outboxTable} WHERE id = ? AND status IN ${undeliveredStatuses}`,
      [id],
    );
    if (deleted !== 1) throw new Error(`The event ${id} changed although its row is locked.`);
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

/** @throws DomainError FAILED_PRECONDITION if the event is neither failed nor dead. */
export function requireUndelivered({ id, status }: Pick<ChangedEvent, "id" | "status">): void {
  if (status === "FAILED" || status === "DEAD") return;
  throw new DomainError(
    "FAILED_PRECONDITION",
    `The event ${id} is ${status}: only FAILED and DEAD events can be retried or discarded.`,
  );
}
