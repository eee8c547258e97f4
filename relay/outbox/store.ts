/** What the relay does with one outbox table: reads what is pending, and marks what became of it. */
import type { OutboxRow } from "../../proto/envelope.ts";
import { openDatabase, type Queryable, type Row } from "../../services/kit/database.ts";
import type { Statement } from "../../services/kit/statements.ts";

/** Reads pending rows. */
export interface PendingReader {
  /** Rows in `seq` order, after `afterSeq` (decimal), except those of some keys. */
  readPending(options: {
    readonly afterSeq: string;
    readonly exceptKeys: readonly string[];
    readonly limit: number;
  }): Promise<readonly OutboxRow[]>;
}

/** The keys that wait for an operator, or for a failed row's next attempt. */
export interface StoredHeldKeys {
  readonly keys: ReadonlySet<string>;
  /** Of these, how many have a dead row: they wait for an operator. */
  readonly deadKeys: number;
  /** Whether a failed row's next attempt has come. */
  readonly isRetryDue: boolean;
}

/** What a source's gauges show. Counts end at {@link countedRowsMax}. */
export interface OutboxFigures {
  /** Rows that wait for nothing but the relay. */
  readonly pendingRows: number;
  /** Rows of held keys. */
  readonly heldRows: number;
  /** Of the oldest row that is pending and not held, by the database's clock; 0 where there is none. */
  readonly oldestPendingAgeMs: number;
}

/** A failed attempt at a row. */
export interface FailedAttempt {
  readonly id: string;
  /** The row's `retry_count` as it was read: of two who count the same attempt, one does. */
  readonly retryCount: number;
  readonly error: string;
}

/** One outbox table, as the relay uses it. */
export interface OutboxStore extends PendingReader {
  /** `schema.table`, for whoever is to find a row again. */
  readonly place: string;
  /**
   * Lets `work` read from one snapshot. Reading on by `seq` is right only there: between two reads of their own, a
   * transaction with a lower `seq` could commit, and a later event of its key be found before it.
   */
  snapshot<T>(work: (reader: PendingReader) => Promise<T>): Promise<T>;
  readHeldKeys(): Promise<StoredHeldKeys>;
  /** Failed rows whose next attempt has come and that no earlier row of their key stands before, in `seq` order. */
  readDue(options: { readonly exceptKeys: readonly string[]; readonly limit: number }): Promise<readonly OutboxRow[]>;
  /** Marks rows that are on the topic, in one statement. The number that still were pending or failed. */
  markPublished(ids: readonly string[]): Promise<number>;
  /** `readHeldKeys` and then `readPending` from the start, in one round trip: two statements, each its own transaction. */
  readHeldKeysAndPending(options: {
    readonly exceptKeys: readonly string[];
    readonly limit: number;
  }): Promise<{ readonly heldKeys: StoredHeldKeys; readonly rows: readonly OutboxRow[] }>;
  /** How often a row has failed; undefined where it is neither pending nor failed any more. */
  retryCountOf(id: string): Promise<number | undefined>;
  /**
   * Leaves a row alone for `delayMs`. `counts`: whether the attempt is held against it.
   * False where somebody else was first.
   */
  markFailed(attempt: FailedAttempt & { readonly counts: boolean; readonly delayMs: number }): Promise<boolean>;
  /** Gives a row up, until an operator decides. False where somebody else was first. */
  markDead(attempt: FailedAttempt): Promise<boolean>;
  /** For gauges: reads little, however much there is. */
  measure(heldKeys: readonly string[]): Promise<OutboxFigures>;
  close(): Promise<void>;
}

interface FrozenRow {
  readonly aggregateId: string;
  readonly status: string;
  readonly isDue: number | null;
}

/** Where a gauge of rows ends: beyond, one reads as many. */
export const countedRowsMax = 100_000;

/** Read, mark, and measure. */
const connectionsMax = 3;
const statementTimeoutMs = 5_000;
/** More would mean that a whole topic is refused; then the source stops, with this as its error. */
const frozenRowsMax = 100_000;

/** Opens the table; connects on first use. */
export function openOutboxStore(options: { readonly databaseUrl: string; readonly table: string }): OutboxStore {
  const { table } = options;
  const database = openDatabase({ url: options.databaseUrl, connectionsMax, statementTimeoutMs });
  // `event.seq` is the number; `seq` alone would sort by the text of the same name.
  const columns = `event.id, event.aggregate_id AS aggregateId, event.type, event.payload, event.headers,
                event.occurred_at AS occurredAt, CAST(event.seq AS CHAR) AS seq`;
  const exceptKeysOf = (keys: readonly string[]) =>
    keys.length === 0 ? { sql: "", values: [] } : { sql: "AND event.aggregate_id NOT IN (?)", values: [keys] };

  /** `FORCE INDEX (…)`, once it is known; nothing as long as there is no such index. */
  let forced: string | undefined;
  const forcedIndex = async () => {
    if (forced !== undefined) return forced;
    const [index] = await database.query<{ name: string }>(
      `SELECT INDEX_NAME AS name FROM information_schema.STATISTICS
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?
          AND (SEQ_IN_INDEX, COLUMN_NAME) IN ((1, 'status'), (2, 'seq'))
        GROUP BY INDEX_NAME HAVING COUNT(*) = 2 ORDER BY MAX(CARDINALITY) DESC LIMIT 1`,
      [table],
    );
    if (index === undefined) return "";
    forced = `FORCE INDEX (\`${index.name}\`)`;
    return forced;
  };

  const selectPending = async ({
    afterSeq,
    exceptKeys,
    limit,
  }: Parameters<PendingReader["readPending"]>[0]): Promise<Statement> => {
    const except = exceptKeysOf(exceptKeys);
    return {
      // By status, through the index on (status, seq): published rows cost nothing. By force, since a server that sees
      // a pile of pending rows would rather read all of the table in the order of `seq`.
      sql: `SELECT ${columns} FROM ${table} AS event ${await forcedIndex()}
             WHERE event.status = 'PENDING' AND event.seq > CAST(? AS UNSIGNED) ${except.sql}
             ORDER BY event.seq LIMIT ?`,
      values: [afterSeq, ...except.values, limit],
    };
  };
  const updatePublished = (ids: readonly string[]): Statement => ({
    sql: `UPDATE ${table} SET status = 'PUBLISHED', published_at = CURRENT_TIMESTAMP(3), next_attempt_at = NULL
           WHERE id IN (?) AND status IN ('PENDING', 'FAILED')`,
    values: [ids],
  });
  const selectFrozen: Statement = {
    // Row by row: grouped, the database may choose the index of the grouping, and read every published row.
    sql: `SELECT aggregate_id AS aggregateId, status, next_attempt_at <= CURRENT_TIMESTAMP(3) AS isDue
            FROM ${table} WHERE status IN ('FAILED', 'DEAD') LIMIT ?`,
    values: [frozenRowsMax + 1],
  };
  const frozenOf = (found: readonly Row[]): StoredHeldKeys => {
    const rows = found as unknown as readonly FrozenRow[];
    if (rows.length > frozenRowsMax) throw new Error(`${table} has more than ${frozenRowsMax} undelivered rows.`);
    return {
      keys: new Set(rows.map(({ aggregateId }) => aggregateId)),
      deadKeys: new Set(rows.filter(({ status }) => status === "DEAD").map(({ aggregateId }) => aggregateId)).size,
      isRetryDue: rows.some(({ status, isDue }) => status === "FAILED" && isDue === 1),
    };
  };
  /** The forced index may have been replaced by another one: it is looked up again after a failure. */
  const lookingUpAgain = async <T>(reading: Promise<T>): Promise<T> => {
    try {
      return await reading;
    } catch (error) {
      forced = undefined;
      throw error;
    }
  };
  const readerOn = (query: Queryable["query"]): PendingReader => ({
    async readPending(options) {
      const { sql, values } = await selectPending(options);
      return (await lookingUpAgain(query(sql, values))) as unknown as OutboxRow[];
    },
  });

  return {
    place: `${decodeURIComponent(new URL(options.databaseUrl).pathname.slice(1))}.${table}`,
    ...readerOn(database.query),
    async snapshot(work) {
      const connection = await database.pool.getConnection();
      const run = (sql: string) => connection.query({ sql, timeout: statementTimeoutMs });
      let healthy = false;
      try {
        await run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        await run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
        const result = await work(
          readerOn(async <R>(sql: string, values: readonly unknown[] = []) => {
            const [rows] = await connection.query({ sql, timeout: statementTimeoutMs }, values as unknown[]);
            return rows as R[];
          }),
        );
        await run("COMMIT");
        healthy = true;
        return result;
      } finally {
        // One that may still be reading, or in its transaction, is of no more use.
        if (healthy) connection.release();
        else connection.destroy();
      }
    },
    async readHeldKeys() {
      return frozenOf(await database.query(selectFrozen.sql, selectFrozen.values));
    },
    async readDue({ exceptKeys, limit }) {
      const except = exceptKeysOf(exceptKeys);
      const rows = await database.query(
        `SELECT ${columns} FROM ${table} AS event ${await forcedIndex()}
          WHERE event.status = 'FAILED' AND event.next_attempt_at <= CURRENT_TIMESTAMP(3) ${except.sql}
            AND NOT EXISTS (SELECT 1 FROM ${table} AS earlier
                             WHERE earlier.aggregate_id = event.aggregate_id AND earlier.seq < event.seq
                               AND earlier.status IN ('PENDING', 'FAILED', 'DEAD'))
          ORDER BY event.seq LIMIT ?`,
        [...except.values, limit],
      );
      return rows as unknown as OutboxRow[];
    },
    async markPublished(ids) {
      const { sql, values } = updatePublished(ids);
      return await database.execute(sql, values);
    },
    async readHeldKeysAndPending(options) {
      const statements = [selectFrozen, await selectPending({ ...options, afterSeq: "0" })];
      const [frozen = [], rows = []] = await lookingUpAgain(database.pipeline(statements));
      return { heldKeys: frozenOf(frozen), rows: rows as unknown as OutboxRow[] };
    },
    async retryCountOf(id) {
      const [row] = await database.query<{ retryCount: number }>(
        `SELECT retry_count AS retryCount FROM ${table} WHERE id = ? AND status IN ('PENDING', 'FAILED')`,
        [id],
      );
      return row?.retryCount;
    },
    async markFailed({ id, retryCount, error, counts, delayMs }) {
      const changed = await database.execute(
        `UPDATE ${table} SET status = 'FAILED', retry_count = ?, last_error = ?,
                next_attempt_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND
          WHERE id = ? AND status IN ('PENDING', 'FAILED') AND retry_count = ?`,
        [retryCount + (counts ? 1 : 0), error, delayMs * 1_000, id, retryCount],
      );
      return changed === 1;
    },
    async markDead({ id, retryCount, error }) {
      const changed = await database.execute(
        `UPDATE ${table} SET status = 'DEAD', retry_count = ?, last_error = ?, next_attempt_at = NULL
          WHERE id = ? AND status IN ('PENDING', 'FAILED') AND retry_count = ?`,
        [retryCount + 1, error, id, retryCount],
      );
      return changed === 1;
    },
    async measure(heldKeys) {
      const except = exceptKeysOf(heldKeys);
      const from = `${table} AS event ${await forcedIndex()}`;
      // Not by force: held rows are found by their keys.
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
    },
    close: () => database.close(),
  };
}

function countUpTo(from: string, condition: string): string {
  return `(SELECT COUNT(*) FROM (SELECT 1 FROM ${from} WHERE event.status = 'PENDING' ${condition}
            LIMIT ${countedRowsMax}) AS counted)`;
}
