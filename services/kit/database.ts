/**
 * MySQL-protocol databases (MySQL 8.4 and 9.x, MariaDB 10.11 and later) through mysql2.
 * Sessions run in UTC and READ COMMITTED, and wait at most 3 s for a lock; sessions.ts sets them up. No session returns to
 * the pool with a transaction open.
 */
import { fullJitterMs, sleep } from "./backoff.ts";
import { isLockWait, isServerError, isTransient } from "./database-errors.ts";
import { queryableOf } from "./queryable.ts";
import { openSessions, type PoolUsage, type SessionOptions } from "./sessions.ts";
import { insertStatements, joinStatements, type SqlValue, type Statement, withRowCheck } from "./statements.ts";
import { attemptInOneRoundTrip, attemptTransaction, readSnapshot } from "./transaction.ts";

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
  /** Runs reads on one consistent snapshot of the database: all of them see the same moment. Takes no locks. */
  snapshot<T>(work: (query: Queryable["query"]) => Promise<T>): Promise<T>;
  usage(): PoolUsage;
  /** Waits for statements that are still running, but not for long. */
  close(): Promise<void>;
}

/** Opens a pool of sessions. Connects on first use, so that a process can start before its database. */
export function openDatabase(options: SessionOptions): Database {
  const sessions = openSessions(options);
  return {
    ...queryableOf(async (sql, values) => {
      const session = await sessions.acquire();
      try {
        const result = await session.query(sql, values);
        session.giveBack(true);
        return result;
      } catch (error) {
        // A session that failed or still waits for an answer must not serve another caller.
        session.giveBack(isServerError(error));
        throw error;
      }
    }),
    transaction: (work, retry) => retryTransient(() => attemptTransaction(sessions, work), retry),
    commit(statements) {
      const joined = joinStatements(statements.flatMap(withRowCheck));
      return retryTransient(() => attemptInOneRoundTrip(sessions, joined));
    },
    snapshot: (work) => readSnapshot(sessions, work),
    usage: sessions.usage,
    close: () => sessions.close(),
  };
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
