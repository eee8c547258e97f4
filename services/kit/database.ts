/**
 * MySQL-protocol databases (MySQL 8.4 and 9.x, MariaDB 10.11 and later) through mysql2.
 * Sessions run in UTC and READ COMMITTED, and wait at most 3 s for a lock. No connection returns to the pool with a
 * transaction open.
 */
import { createPool, type Pool } from "mysql2/promise";
import { fullJitterMs, sleep } from "./backoff.ts";
import { giveBack, queryableOf, queryOn } from "./connection.ts";
import { isLockWait, isServerError, isTransient } from "./database-errors.ts";
import { insertStatements, joinStatements, type SqlValue, type Statement, withRowCheck } from "./statements.ts";
import { attemptInOneRoundTrip, attemptTransaction } from "./transaction.ts";

export type Row = Record<string, unknown>;

/** The statements that both a database and a transaction can run. */
export interface Queryable {
  /** Rows of a SELECT. `?` takes one value, or a list for `IN (?)`, or a list of lists for `VALUES ?`. */
  query<R extends Row = Row>(sql: string, values?: readonly unknown[]): Promise<R[]>;
  /** The number of rows that the statement matched. */
  execute(sql: string, values?: readonly unknown[]): Promise<number>;
  /**
   * Runs statements that do not depend on each other's results, in one round trip. Resolves to the rows of each, in
   * order: no rows for a statement that is not a SELECT. Stops at the first statement that fails.
   * @throws RowsChangedError when a statement did not match `rowsExpected` rows. Outside a transaction, every statement
   * has taken effect by then.
   */
  pipeline(statements: readonly Statement[]): Promise<readonly Row[][]>;
}

/** An open transaction. Only {@link Database.transaction} begins and ends one. */
export interface Transaction extends Queryable {
  readonly transaction: true;
}

/** A transaction as its owner sees it: the owner may commit it. */
export interface OwnTransaction extends Transaction {
  /**
   * Runs the last statements and COMMIT in one round trip. No statement may follow.
   * @throws RowsChangedError when a statement did not match `rowsExpected` rows; then nothing is committed.
   */
  commit(statements: readonly Statement[]): Promise<void>;
}

interface RetryOptions {
  readonly attempts?: number;
  readonly retryLockWaits?: boolean;
  readonly onRetry?: () => void;
}

export interface Database extends Queryable {
  /** For drizzle's query builder, where speed does not matter. */
  readonly pool: Pool;
  /**
   * Runs `work` in a transaction and commits it; rolls back when `work` throws. After a deadlock or a lock wait that
   * timed out it starts over, up to `attempts` times in all (default 3), and calls `onRetry` before each new attempt. With
   * `retryLockWaits: false` it throws after a lock wait: for a caller that can go on without the row.
   * @throws CommitOutcomeUnknownError when the answer to COMMIT was lost; otherwise what `work` or the server throws.
   */
  transaction<T>(work: (transaction: OwnTransaction) => Promise<T>, options?: RetryOptions): Promise<T>;
  /**
   * Runs the statements as one transaction, all or nothing, in one round trip. Retries like `transaction`.
   * @throws CommitOutcomeUnknownError when the answer was lost; RowsChangedError as {@link OwnTransaction.commit}.
   */
  commit(statements: readonly Statement[]): Promise<void>;
  close(): Promise<void>;
}

/** Opens a pool. Connects on first use, so that a process can start before its database. */
export function openDatabase(options: {
  /** mysql://user:password@host:port/schema */
  readonly url: string;
  readonly connectionsMax: number;
  /** Callers that may wait for a connection; further ones are refused. Default 1,000. */
  readonly waitersMax?: number;
  /** Default 1,000. */
  readonly connectTimeoutMs?: number;
  /** After this time a statement fails and its connection is closed. Must exceed the lock wait. Default 5,000. */
  readonly statementTimeoutMs?: number;
}): Database {
  const timeoutMs = options.statementTimeoutMs ?? 5_000;
  const pool = createPool({
    uri: options.url,
    connectionLimit: options.connectionsMax,
    maxIdle: options.connectionsMax,
    queueLimit: options.waitersMax ?? 1_000,
    connectTimeout: options.connectTimeoutMs ?? 1_000,
    timezone: "Z",
    // The schemas' collation: with another one, comparing a literal to a column would bypass the column's index.
    charset: "UTF8MB4_BIN",
    supportBigNumbers: true,
    maxPreparedStatements: 100,
    enableKeepAlive: true,
    // Needed to send several statements in one packet. Values are always escaped, never pasted into the SQL.
    multipleStatements: true,
  });
  configureSessions(pool);
  return {
    ...queryableOf(async (sql, values) => {
      const connection = await pool.getConnection();
      try {
        const result = await queryOn(connection, timeoutMs)(sql, values);
        connection.release();
        return result;
      } catch (error) {
        // A connection that failed or still waits for an answer must not serve another caller.
        giveBack(connection, isServerError(error));
        throw error;
      }
    }),
    pool,
    transaction: (work, retry) => retryTransient(() => attemptTransaction(pool, timeoutMs, work), retry),
    commit(statements) {
      const joined = joinStatements(statements.flatMap(withRowCheck));
      return retryTransient(() => attemptInOneRoundTrip(pool, timeoutMs, joined));
    },
    async close() {
      await pool.end();
    },
  };
}

const sessionSettings = [
  "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
  "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 3",
];

/** Queues the session settings on each new connection, ahead of its first statement. */
function configureSessions(pool: Pool): void {
  pool.pool.on("connection", (connection) => {
    for (const sql of sessionSettings) {
      connection.query(sql, (error: unknown) => {
        // A session without its settings must not be used.
        if (error) connection.destroy();
      });
    }
  });
}

/** Repeats `work` while it fails with a transient conflict; waits up to 100 ms between attempts. */
async function retryTransient<T>(
  work: () => Promise<T>,
  { attempts = 3, retryLockWaits = true, onRetry }: RetryOptions = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= attempts || !isTransient(error) || (isLockWait(error) && !retryLockWaits)) throw error;
      onRetry?.();
      await sleep(fullJitterMs(attempt, { baseMs: 5, maxMs: 100 }));
    }
  }
}

/** Inserts all rows in one statement; does nothing for no rows. A duplicate key is thrown, see `isDuplicateKey`. */
export async function insertRows(
  database: Queryable,
  table: string,
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): Promise<void> {
  await database.pipeline(insertStatements(table, columns, rows));
}

/** The database's current time. Rows and deadlines are dated by it, so judge them by it too. */
export async function databaseNow(database: Queryable): Promise<Date> {
  const [row] = await database.query<{ now: Date }>("SELECT CURRENT_TIMESTAMP(3) AS now");
  if (row === undefined) throw new Error("The database returned no time.");
  return row.now;
}
