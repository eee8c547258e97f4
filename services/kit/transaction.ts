/** One attempt at a transaction on one session of a pool. */
import type { OwnTransaction, Queryable } from "./database.ts";
import { CommitOutcomeUnknownError, commitErrorOf, isDriverError, isServerError } from "./database-errors.ts";
import { queryableOf } from "./queryable.ts";
import type { Query, SessionPool } from "./sessions.ts";
import { joinStatements, type Statement, withRowCheck } from "./statements.ts";

interface OpenTransaction {
  readonly transaction: OwnTransaction;
  isStarted(): boolean;
  isCommitted(): boolean;
}

/** START TRANSACTION travels with the first statement, so that it costs no round trip of its own. */
function openTransaction(query: Query): OpenTransaction {
  let started = false;
  let committed = false;

  const queryInside: Query = async (sql, values) => {
    if (committed) throw new Error("The transaction is already committed: no statement may follow.");
    if (started) return await query(sql, values);
    started = true;
    const results = (await query(`START TRANSACTION; ${sql}`, values)) as unknown[];
    return results.length === 2 ? results[1] : results.slice(1);
  };

  const commit = async (statements: readonly Statement[]) => {
    if (committed) throw new Error("The transaction is already committed.");
    const { sql, values } = joinStatements([...statements.flatMap(withRowCheck), { sql: "COMMIT", values: [] }]);
    try {
      await queryInside(sql, values);
    } catch (error) {
      throw commitErrorOf(error);
    }
    committed = true;
  };

  return {
    transaction: { ...queryableOf(queryInside), transaction: true, commit },
    isStarted: () => started,
    isCommitted: () => committed,
  };
}

/**
 * Runs `work` in a transaction and commits it unless `work` did; rolls back if `work` throws.
 * @throws CommitOutcomeUnknownError when the answer to COMMIT was lost; otherwise what `work` or the server throws.
 */
export async function attemptTransaction<T>(
  sessions: SessionPool,
  work: (transaction: OwnTransaction) => Promise<T>,
): Promise<T> {
  const session = await sessions.acquire();
  const { query } = session;
  const { transaction, isStarted, isCommitted } = openTransaction(query);
  let usable = false;
  try {
    let result: T;
    try {
      result = await work(transaction);
    } catch (error) {
      usable = !isStarted() || (!isConnectionLost(error) && (await rollBack(query)));
      throw error;
    }
    if (isStarted() && !isCommitted()) await transaction.commit([]);
    usable = true;
    return result;
  } finally {
    session.giveBack(usable);
  }
}

/**
 * Runs the statement (or several, joined) as one transaction in one round trip.
 * @throws CommitOutcomeUnknownError when the answer was lost; otherwise what the server throws.
 */
export async function attemptInOneRoundTrip(sessions: SessionPool, { sql, values }: Statement): Promise<void> {
  const session = await sessions.acquire();
  const { query } = session;
  let usable = false;
  try {
    await query(`START TRANSACTION; ${sql}; COMMIT`, values);
    usable = true;
  } catch (error) {
    const thrown = commitErrorOf(error);
    if (thrown === error) usable = await rollBack(query);
    throw thrown;
  } finally {
    session.giveBack(usable);
  }
}

/** Runs reads in one read-only transaction, in which all of them see the database as it was when the transaction began. */
export async function readSnapshot<T>(
  sessions: SessionPool,
  work: (query: Queryable["query"]) => Promise<T>,
): Promise<T> {
  const session = await sessions.acquire();
  let usable = false;
  try {
    const begin =
      "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
    await session.query(begin, []);
    const result = await work(queryableOf(session.query).query);
    await session.query("COMMIT", []);
    usable = true;
    return result;
  } finally {
    // After an error, a read may still be in flight, or the transaction still be open.
    session.giveBack(usable);
  }
}

/** True if the connection failed or does not answer. Closing it makes the server roll back. */
function isConnectionLost(error: unknown): boolean {
  return error instanceof CommitOutcomeUnknownError || (isDriverError(error) && !isServerError(error));
}

/** Returns whether the server has rolled back. Needed after every error: some (1205) end only the statement. */
function rollBack(query: Query): Promise<boolean> {
  return query("ROLLBACK", []).then(
    () => true,
    () => false,
  );
}
