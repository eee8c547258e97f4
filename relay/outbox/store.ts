/** Everything the relay does with one outbox table: read pending rows, mark their outcome, and measure. */
import type { OutboxRow } from "../../proto/envelope.ts";
import { type Database, openDatabase, type Queryable, type Row } from "../../services/kit/database.ts";
import type { Statement } from "../../services/kit/statements.ts";

/** Reads pending rows. */
export interface PendingReader {
  /** Rows in `seq` order, after `afterSeq` (decimal), without those of `exceptKeys`. */
  readPending(options: {
    readonly afterSeq: string;
    readonly exceptKeys: readonly string[];
    readonly limit: number;
  }): Promise<readonly OutboxRow[]>;
}

/** The keys that have a FAILED or a DEAD row. */
export interface StoredHeldKeys {
  readonly keys: ReadonlySet<string>;
  /** How many of these keys have a DEAD row: they wait for an operator. */
  readonly deadKeys: number;
  /** Whether a FAILED row is due for its next attempt. */
  readonly isRetryDue: boolean;
}

/** What a source's gauges show. No count exceeds {@link countedRowsMax}. */
export interface OutboxFigures {
  /** Pending rows whose key is not held, as far as `measure` was given the held keys. */
  readonly pendingRows: number;
  /** Pending rows of the held keys that `measure` was given. */
  readonly heldRows: number;
  /** Age of the oldest of the pending rows that are not held, by the database's clock; 0 if there is none. */
  readonly oldestPendingAgeMs: number;
}

/** A failed attempt at a row. */
export interface FailedAttempt {
  readonly id: string;
  /**
   * How many attempts had failed before this one: the row's `retry_count` when it was read. If two relays count the same
   * attempt, only one succeeds.
   */
  readonly failedAttempts: number;
  readonly error: string;
}

/** One outbox table, as the relay uses it. */
export interface OutboxStore extends PendingReader {
  /** `schema.table`, so that a dead letter can name its row. */
  readonly qualifiedTable: string;
  /** Lets `work` read from one snapshot. Only there is it safe to page by `afterSeq` (relay.ts, "Order"). */
  snapshot<T>(work: (reader: PendingReader) => Promise<T>): Promise<T>;
  readHeldKeys(): Promise<StoredHeldKeys>;
  /**
   * Makes FAILED rows PENDING that are due and that have no earlier unpublished row of their key, and returns them in `seq`
   * order. While a row is attempted it is PENDING, so that an operator cannot discard it. It keeps its `retry_count`.
   */
  takeDue(options: { readonly exceptKeys: readonly string[]; readonly limit: number }): Promise<readonly OutboxRow[]>;
  /** `readHeldKeys` and then `readPending` from the start, in one round trip; each is a transaction of its own. */
  readHeldKeysAndPending(options: {
    readonly exceptKeys: readonly string[];
    readonly limit: number;
  }): Promise<{ readonly heldKeys: StoredHeldKeys; readonly rows: readonly OutboxRow[] }>;
  /** Marks rows PUBLISHED in one statement. Returns how many of them were still PENDING or FAILED. */
  markPublished(ids: readonly string[]): Promise<number>;
  /** How many attempts at a row have failed; undefined if it is no longer PENDING or FAILED. */
  failedAttemptsOf(id: string): Promise<number | undefined>;
  /**
   * Marks a row FAILED and due after `delayMs`. `countsAttempt`: whether the attempt counts against it. Returns false if
   * another process changed the row first.
   */
  markFailed(attempt: FailedAttempt & { readonly countsAttempt: boolean; readonly delayMs: number }): Promise<boolean>;
  /** Marks a row DEAD, until an operator decides. Returns false if another process changed the row first. */
  markDead(attempt: FailedAttempt): Promise<boolean>;
  /**
   * Measures for the gauges. Reads at most {@link countedRowsMax} index entries for each count.
   * @param heldKeys the keys whose rows count as held. The relay passes at most 1,000; rows of further held keys count as
   *   pending.
   */
  measure(heldKeys: readonly string[]): Promise<OutboxFigures>;
  close(): Promise<void>;
}

/** Counts of rows stop here: a gauge with this value means this many or more. */
export const countedRowsMax = 100_000;

/** One each to read, to mark and to measure. */
const connectionsMax = 3;
const statementTimeoutMs = 5_000;
/** More suggest that the broker refuses a whole topic. Every pass then fails with an error that names this limit. */
const heldRowsMax = 100_000;

// Statements sort by `event.seq`, the number. A bare `seq` would be the alias defined here, which is text.
const columns = `event.id, event.aggregate_id AS aggregateId, event.type, event.payload, event.headers,
                event.occurred_at AS occurredAt, CAST(event.seq AS CHAR) AS seq`;

interface OutboxTable {
  readonly database: Database;
  readonly table: string;
  readonly pendingIndex: PendingIndex;
}

/** Opens the table. Connects on first use. */
export function openOutboxStore(options: { readonly databaseUrl: string; readonly table: string }): OutboxStore {
  const { databaseUrl, table } = options;
  const database = openDatabase({ url: databaseUrl, connectionsMax, statementTimeoutMs });
  const outbox = { database, table, pendingIndex: findPendingIndex(database, table) };
  return {
    qualifiedTable: `${decodeURIComponent(new URL(databaseUrl).pathname.slice(1))}.${table}`,
    ...createPendingReader(outbox, database.query),
    ...createReads(outbox),
    ...createMarks(outbox),
    measure: (heldKeys) => measure(outbox, heldKeys),
    close: () => database.close(),
  };
}

/** The table's index on (status, seq), which statements must use. */
interface PendingIndex {
  /** `FORCE INDEX (…)`; empty while the table has no index of this kind. Cached once found. */
  forceIndex(): Promise<string>;
  /**
   * Forgets the index, so that it is looked up again: it may have been replaced by another. A failed read of pending rows
   * calls it. That is enough for all statements, because a pass after a failed one begins with that read.
   */
  forget(): void;
}

function findPendingIndex(database: Database, table: string): PendingIndex {
  let found: string | undefined;
  return {
    async forceIndex() {
      if (found !== undefined) return found;
      // If there are several, each is correct, and the server's statistics decide.
      const [index] = await database.query<{ name: string }>(
        `SELECT INDEX_NAME AS name FROM information_schema.STATISTICS
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?
          AND (SEQ_IN_INDEX, COLUMN_NAME) IN ((1, 'status'), (2, 'seq'))
        GROUP BY INDEX_NAME HAVING COUNT(*) = 2 ORDER BY MAX(CARDINALITY) DESC LIMIT 1`,
        [table],
      );
      if (index === undefined) return "";
      found = `FORCE INDEX (\`${index.name}\`)`;
      return found;
    },
    forget() {
      found = undefined;
    },
  };
}

type ReadPendingOptions = Parameters<PendingReader["readPending"]>[0];

async function selectPending(
  { table, pendingIndex }: OutboxTable,
  { afterSeq, exceptKeys, limit }: ReadPendingOptions,
): Promise<Statement> {
  const except = exceptKeysOf(exceptKeys);
  return {
    // By status, through the index on (status, seq), so that published rows cost nothing. FORCE INDEX: with a large
    // backlog the optimizer would rather read the whole table in the order of `seq`.
    sql: `SELECT ${columns} FROM ${table} AS event ${await pendingIndex.forceIndex()}
             WHERE event.status = 'PENDING' AND event.seq > CAST(? AS UNSIGNED) ${except.sql}
             ORDER BY event.seq LIMIT ?`,
    values: [afterSeq, ...except.values, limit],
  };
}

function exceptKeysOf(keys: readonly string[]) {
  return keys.length === 0 ? { sql: "", values: [] } : { sql: "AND event.aggregate_id NOT IN (?)", values: [keys] };
}

function selectHeldRows(table: string): Statement {
  return {
    // Without GROUP BY: for it the database may choose the index of the key, and read every published row.
    sql: `SELECT aggregate_id AS aggregateId, status, next_attempt_at <= CURRENT_TIMESTAMP(3) AS isDue
            FROM ${table} WHERE status IN ('FAILED', 'DEAD') LIMIT ?`,
    values: [heldRowsMax + 1],
  };
}

interface HeldRow {
  readonly aggregateId: string;
  readonly status: string;
  readonly isDue: number | null;
}

function heldKeysOf(table: string, found: readonly Row[]): StoredHeldKeys {
  const rows = found as unknown as readonly HeldRow[];
  if (rows.length > heldRowsMax) throw new Error(`${table} has more than ${heldRowsMax} failed and dead rows.`);
  return {
    keys: new Set(rows.map(({ aggregateId }) => aggregateId)),
    deadKeys: new Set(rows.filter(({ status }) => status === "DEAD").map(({ aggregateId }) => aggregateId)).size,
    isRetryDue: rows.some(({ status, isDue }) => status === "FAILED" && isDue === 1),
  };
}

function createPendingReader(outbox: OutboxTable, query: Queryable["query"]): PendingReader {
  return {
    async readPending(options) {
      const { sql, values } = await selectPending(outbox, options);
      return (await forgetIndexOnError(outbox, query(sql, values))) as unknown as OutboxRow[];
    },
  };
}

async function forgetIndexOnError<T>({ pendingIndex }: OutboxTable, reading: Promise<T>): Promise<T> {
  try {
    return await reading;
  } catch (error) {
    pendingIndex.forget();
    throw error;
  }
}

function createReads(
  outbox: OutboxTable,
): Pick<OutboxStore, "snapshot" | "readHeldKeys" | "takeDue" | "readHeldKeysAndPending"> {
  const { database, table, pendingIndex } = outbox;
  const heldRows = selectHeldRows(table);
  return {
    snapshot: (work) => database.snapshot((query) => work(createPendingReader(outbox, query))),
    async readHeldKeys() {
      return heldKeysOf(table, await database.query(heldRows.sql, heldRows.values));
    },
    async takeDue({ exceptKeys, limit }) {
      const except = exceptKeysOf(exceptKeys);
      // SKIP LOCKED: a row that an operator is retrying or discarding is left alone.
      const due = `SELECT ${columns} FROM ${table} AS event ${await pendingIndex.forceIndex()}
          WHERE event.status = 'FAILED' AND event.next_attempt_at <= CURRENT_TIMESTAMP(3) ${except.sql}
            AND NOT EXISTS (SELECT 1 FROM ${table} AS earlier
                             WHERE earlier.aggregate_id = event.aggregate_id AND earlier.seq < event.seq
                               AND earlier.status IN ('PENDING', 'FAILED', 'DEAD'))
          ORDER BY event.seq LIMIT ? FOR UPDATE SKIP LOCKED`;
      return await database.transaction(async (transaction) => {
        const rows = (await transaction.query(due, [...except.values, limit])) as unknown as OutboxRow[];
        const ids = rows.map(({ id }) => id);
        const take = `UPDATE ${table} SET status = 'PENDING', next_attempt_at = NULL WHERE id IN (?)`;
        if (ids.length > 0) await transaction.execute(take, [ids]);
        return rows;
      });
    },
    async readHeldKeysAndPending(options) {
      const statements = [heldRows, await selectPending(outbox, { ...options, afterSeq: "0" })];
      const [held = [], rows = []] = await forgetIndexOnError(outbox, database.pipeline(statements));
      return { heldKeys: heldKeysOf(table, held), rows: rows as unknown as OutboxRow[] };
    },
  };
}

function createMarks({
  database,
  table,
}: OutboxTable): Pick<OutboxStore, "markPublished" | "failedAttemptsOf" | "markFailed" | "markDead"> {
  return {
    async markPublished(ids) {
      return await database.execute(
        `UPDATE ${table} SET status = 'PUBLISHED', published_at = CURRENT_TIMESTAMP(3), next_attempt_at = NULL
           WHERE id IN (?) AND status IN ('PENDING', 'FAILED')`,
        [ids],
      );
    },
    async failedAttemptsOf(id) {
      const [row] = await database.query<{ failedAttempts: number }>(
        `SELECT retry_count AS failedAttempts FROM ${table} WHERE id = ? AND status IN ('PENDING', 'FAILED')`,
        [id],
      );
      return row?.failedAttempts;
    },
    async markFailed({ id, failedAttempts, error, countsAttempt, delayMs }) {
      const changed = await database.execute(
        `UPDATE ${table} SET status = 'FAILED', retry_count = ?, last_error = ?,
                next_attempt_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND
          WHERE id = ? AND status IN ('PENDING', 'FAILED') AND retry_count = ?`,
        [failedAttempts + (countsAttempt ? 1 : 0), error, delayMs * 1_000, id, failedAttempts],
      );
      return changed === 1;
    },
    async markDead({ id, failedAttempts, error }) {
      const changed = await database.execute(
        `UPDATE ${table} SET status = 'DEAD', retry_count = ?, last_error = ?, next_attempt_at = NULL
          WHERE id = ? AND status IN ('PENDING', 'FAILED') AND retry_count = ?`,
        [failedAttempts + 1, error, id, failedAttempts],
      );
      return changed === 1;
    },
  };
}

async function measure(
  { database, table, pendingIndex }: OutboxTable,
  heldKeys: readonly string[],
): Promise<OutboxFigures> {
  const except = exceptKeysOf(heldKeys);
  const from = `${table} AS event ${await pendingIndex.forceIndex()}`;
  // Without FORCE INDEX: held rows are found by their keys.
  const held = heldKeys.length === 0 ? "0" : countUpTo(`${table} AS event`, "AND event.aggregate_id IN (?)");
  const [figures] = await database.query(
    `SELECT ${countUpTo(from, "")} AS waiting, ${held} AS held,
                (SELECT TIMESTAMPDIFF(MICROSECOND, event.occurred_at, CURRENT_TIMESTAMP(3)) DIV 1000
                   FROM ${from} WHERE event.status = 'PENDING' ${except.sql}
                  ORDER BY event.seq LIMIT 1) AS oldestAgeMs`,
    [...except.values, ...except.values],
  );
  const heldRows = Number(figures?.held);
  return {
    pendingRows: Math.max(0, Number(figures?.waiting) - heldRows),
    heldRows,
    oldestPendingAgeMs: Math.max(0, Number(figures?.oldestAgeMs ?? 0)),
  };
}

function countUpTo(from: string, condition: string): string {
  return `(SELECT COUNT(*) FROM (SELECT 1 FROM ${from} WHERE event.status = 'PENDING' ${condition}
            LIMIT ${countedRowsMax}) AS counted)`;
}
