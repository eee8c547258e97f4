/** What the relay does with one outbox table: reads what is pending, and marks what was published. */
import type { OutboxRow } from "../proto/envelope.ts";
import { openDatabase, type Queryable } from "../services/kit/database.ts";

/** Reads pending rows. */
export interface PendingReader {
  /** Rows in `seq` order, after `afterSeq` (decimal), except those of some keys. */
  readPending(options: {
    readonly afterSeq: string;
    readonly exceptKeys: readonly string[];
    readonly limit: number;
  }): Promise<readonly OutboxRow[]>;
}

/** One outbox table, as the relay uses it. */
export interface OutboxStore extends PendingReader {
  /**
   * Lets `work` read from one snapshot. Reading on by `seq` is right only there: between two reads of their own, a
   * transaction with a lower `seq` could commit, and a later event of its key be found before it.
   */
  snapshot<T>(work: (reader: PendingReader) => Promise<T>): Promise<T>;
  /** The keys that wait for an operator, or for a row's next attempt. */
  frozenKeys(): Promise<ReadonlySet<string>>;
  /** Marks rows that are on the topic, in one statement. The number that still were pending. */
  markPublished(ids: readonly string[]): Promise<number>;
  close(): Promise<void>;
}

/** Read, mark, and one to spare. */
const connectionsMax = 3;
const statementTimeoutMs = 5_000;
/** More would mean that a whole topic is refused; then the source stops, with this as its error. */
const frozenKeysMax = 100_000;

/** Opens the table; connects on first use. */
export function openOutboxStore(options: { readonly databaseUrl: string; readonly table: string }): OutboxStore {
  const { table } = options;
  const database = openDatabase({ url: options.databaseUrl, connectionsMax, statementTimeoutMs });

  const readerOn = (query: Queryable["query"]): PendingReader => ({
    async readPending({ afterSeq, exceptKeys, limit }) {
      // By status, through the index on (status, seq): published rows cost nothing. `event.seq` is the number; `seq`
      // alone would sort by the text of the same name.
      const rows = await query(
        `SELECT event.id, event.aggregate_id AS aggregateId, event.type, event.payload, event.headers,
                event.occurred_at AS occurredAt, CAST(event.seq AS CHAR) AS seq
           FROM ${table} AS event
          WHERE event.status = 'PENDING' AND event.seq > CAST(? AS UNSIGNED)
            ${exceptKeys.length === 0 ? "" : "AND event.aggregate_id NOT IN (?)"}
          ORDER BY event.seq LIMIT ?`,
        exceptKeys.length === 0 ? [afterSeq, limit] : [afterSeq, exceptKeys, limit],
      );
      return rows as unknown as OutboxRow[];
    },
  });

  return {
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
    async frozenKeys() {
      const rows = await database.query<{ aggregateId: string }>(
        `SELECT DISTINCT aggregate_id AS aggregateId FROM ${table} WHERE status IN ('FAILED', 'DEAD') LIMIT ?`,
        [frozenKeysMax + 1],
      );
      if (rows.length > frozenKeysMax) throw new Error(`${table} has more than ${frozenKeysMax} frozen keys.`);
      return new Set(rows.map(({ aggregateId }) => aggregateId));
    },
    async markPublished(ids) {
      return await database.execute(
        `UPDATE ${table} SET status = 'PUBLISHED', published_at = CURRENT_TIMESTAMP(3)
          WHERE id IN (?) AND status = 'PENDING'`,
        [ids],
      );
    },
    close: () => database.close(),
  };
}
