/**
 * MySQL-protocol databases (MySQL 8.4 and 9.x, MariaDB 10.11 and later) through mysql2.
 * Sessions run in UTC, READ COMMITTED, with a lock wait of 3 s; an ended transaction never leaks into the next one.
 */
import { createPool, type Pool, type ResultSetHeader } from "mysql2/promise";
import { fullJitterMs, sleep } from "./backoff.ts";
import { causesOf, DomainError, UnavailableError } from "./errors.ts";

/** A value in a statement. Dates are sent in UTC. */
export type SqlValue = string | number | bigint | Date | null;
export type Row = Record<string, unknown>;

/** What both a transaction and the database itself can do. */
export interface Queryable {
  /** Rows of a SELECT. `?` takes one value, or a list for `IN (?)`, or a list of lists for `VALUES ?`. */
  query<R extends Row = Row>(sql: string, values?: readonly unknown[]): Promise<R[]>;
  /** The number of rows that a statement matched. */
  execute(sql: string, values?: readonly unknown[]): Promise<number>;
  /**
   * Statements that need nothing of each other's results, in one round trip: the rows of each, none for one that is no
   * SELECT. The first one that fails ends it.
   * @throws RowsChangedError when a statement did not match the rows that it should; outside of a transaction they all
   * have taken effect then.
   */
  pipeline(statements: readonly Statement[]): Promise<readonly Row[][]>;
}

/** A statement with its values. */
export interface Statement {
  readonly sql: string;
  readonly values: readonly unknown[];
  /** How many rows it must match. Default: any number. */
  readonly rowsExpected?: number;
}

/** Rows were not as they had been read: one is missing, or does not meet its statement's guard. */
export class RowsChangedError extends Error {
  override readonly name = "RowsChangedError";
}

/** An open transaction. Only {@link Database.transaction} makes and ends one. */
export interface Transaction extends Queryable {
  readonly transaction: true;
}

/** A transaction in the hands of whoever began it. */
export interface OwnTransaction extends Transaction {
  /**
   * The last statements: they and the COMMIT are one round trip. Nothing may follow.
   * @throws RowsChangedError when a statement did not match the rows that it should: then nothing is committed.
   */
  commit(statements: readonly Statement[]): Promise<void>;
}

export interface Database extends Queryable {
  /** For drizzle's query builder, where speed does not matter. */
  readonly pool: Pool;
  /**
   * Runs `work` in a transaction and commits it; rolls back when `work` throws. Deadlocks and lock waits that timed
   * out are tried again from the start, up to `attempts` times (default 3).
   * @throws CommitOutcomeUnknownError when the answer to COMMIT was lost; otherwise what `work` or the server throws.
   */
  transaction<T>(
    work: (transaction: OwnTransaction) => Promise<T>,
    options?: { readonly attempts?: number; readonly onRetry?: () => void },
  ): Promise<T>;
  /**
   * Runs the statements as one transaction, all or nothing, in one round trip. Tried again like `transaction`.
   * @throws CommitOutcomeUnknownError when the answer was lost.
   */
  commit(statements: readonly Statement[]): Promise<void>;
  close(): Promise<void>;
}

/** COMMIT was sent and its answer lost: the transaction may be there or not. Look before doing it again. */
export class CommitOutcomeUnknownError extends UnavailableError {
  override readonly name: string = "CommitOutcomeUnknownError";
}

/** Opens a pool; connects on first use, so that a process can start before its database. */
export function openDatabase(options: {
  /** mysql://user:password@host:port/schema */
  readonly url: string;
  readonly connectionsMax: number;
  /** Callers that may wait for a connection; one more is refused. Default 1,000. */
  readonly waitersMax?: number;
  /** Default 1,000. */
  readonly connectTimeoutMs?: number;
  /** A statement that takes longer is given up, its connection closed. Longer than the lock wait. Default 5,000. */
  readonly statementTimeoutMs?: number;
}): Database {
  const timeout = options.statementTimeoutMs ?? 5_000;
  const pool = createPool({
    uri: options.url,
    connectionLimit: options.connectionsMax,
    maxIdle: options.connectionsMax,
    queueLimit: options.waitersMax ?? 1_000,
    connectTimeout: options.connectTimeoutMs ?? 1_000,
    timezone: "Z",
    // The schemas' collation: a literal compared with a column must not hide its index.
    charset: "UTF8MB4_BIN",
    supportBigNumbers: true,
    maxPreparedStatements: 100,
    enableKeepAlive: true,
    // For `pipeline`, and to begin a transaction with its first statement. Values are always escaped, never pasted in.
    multipleStatements: true,
  });
  pool.pool.on("connection", (connection) => {
    for (const sql of sessionSettings) {
      // Queued ahead of whatever the connection is taken for. Without its settings it must not be used.
      connection.query(sql, (error: unknown) => {
        if (error) connection.destroy();
      });
    }
  });

  // The driver's callbacks, not its promises: those capture a stack for every statement, a tenth of a busy process.
  const askOn =
    (connection: CallbackQueryable): Ask =>
    (sql, values) =>
      new Promise((resolve, reject) => {
        connection.query({ sql, timeout, values }, (error, result) => {
          if (isGuardsError(error))
            reject(new RowsChangedError("Rows were not as they had been read.", { cause: error }));
          else if (error) reject(error);
          else resolve(result);
        });
      });

  const rollBack = (ask: Ask) =>
    ask("ROLLBACK", []).then(
      () => true,
      () => false,
    );

  const attempt = async <T>(work: (transaction: OwnTransaction) => Promise<T>): Promise<T> => {
    const connection = await pool.getConnection();
    const ask = askOn(connection.connection as unknown as CallbackQueryable);
    let healthy = false;
    let started = false;
    let committed = false;
    // The transaction begins with its first statement, in the same packet.
    const askInTransaction: Ask = async (sql, values) => {
      if (committed) throw new Error("The transaction is committed: nothing may follow.");
      if (started) return await ask(sql, values);
      started = true;
      const results = (await ask(`START TRANSACTION; ${sql}`, values)) as unknown[];
      return results.length === 2 ? results[1] : results.slice(1);
    };
    const commit = async (statements: readonly Statement[]) => {
      if (committed) throw new Error("The transaction is committed already.");
      const { sql, values } = joined([...statements.flatMap(guarded), { sql: "COMMIT", values: [] }]);
      try {
        await askInTransaction(sql, values);
      } catch (error) {
        throw commitErrorOf(error);
      }
      committed = true;
    };
    try {
      let result: T;
      try {
        result = await work({ ...queryableOf(askInTransaction), transaction: true, commit });
      } catch (error) {
        // The server is asked to roll back even where it already did: 1205 ends the statement only. A connection that
        // failed or does not answer is closed instead: the server rolls back by itself.
        const lost = error instanceof CommitOutcomeUnknownError || (isDriverError(error) && !isServerError(error));
        healthy = !started || (!lost && (await rollBack(ask)));
        throw error;
      }
      if (started && !committed) await commit([]);
      healthy = true;
      return result;
    } finally {
      if (healthy) connection.release();
      else connection.destroy();
    }
  };

  const attemptAtOnce = async ({ sql, values }: Statement): Promise<void> => {
    const connection = await pool.getConnection();
    const ask = askOn(connection.connection as unknown as CallbackQueryable);
    let healthy = false;
    try {
      await ask(`START TRANSACTION; ${sql}; COMMIT`, values);
      healthy = true;
    } catch (error) {
      const thrown = commitErrorOf(error);
      if (thrown === error) healthy = await rollBack(ask);
      throw thrown;
    } finally {
      if (healthy) connection.release();
      else connection.destroy();
    }
  };

  const again = async <T>(
    work: () => Promise<T>,
    { attempts = 3, onRetry }: { readonly attempts?: number; readonly onRetry?: () => void } = {},
  ): Promise<T> => {
    for (let number = 1; ; number++) {
      try {
        return await work();
      } catch (error) {
        if (number >= attempts || !isTransient(error)) throw error;
        onRetry?.();
        await sleep(fullJitterMs(number, { baseMs: 5, maxMs: 100 }));
      }
    }
  };

  return {
    ...queryableOf(async (sql, values) => {
      const connection = await pool.getConnection();
      try {
        const result = await askOn(connection.connection as unknown as CallbackQueryable)(sql, values);
        connection.release();
        return result;
      } catch (error) {
        // One that failed, or still waits for an answer, must not be given to anybody else.
        if (isServerError(error)) connection.release();
        else connection.destroy();
        throw error;
      }
    }),
    pool,
    transaction: (work, options) => again(() => attempt(work), options),
    commit: (statements) => again(() => attemptAtOnce(joined(statements.flatMap(guarded)))),
    async close() {
      await pool.end();
    },
  };
}

/** Sends one packet; resolves to the driver's result, a list of results where it held several statements. */
type Ask = (sql: string, values: readonly unknown[]) => Promise<unknown>;

function queryableOf(ask: Ask): Queryable {
  return {
    query: async <R extends Row>(sql: string, values: readonly unknown[] = []) => (await ask(sql, values)) as R[],
    execute: async (sql, values = []) => ((await ask(sql, values)) as ResultSetHeader).affectedRows,
    async pipeline(statements) {
      if (statements.length === 0) return [];
      const { sql, values } = joined(statements);
      const result = await ask(sql, values);
      const results = (statements.length === 1 ? [result] : result) as readonly (ResultSetHeader | Row[])[];
      return results.map((rows, index) => {
        if (Array.isArray(rows)) return rows;
        const { rowsExpected = rows.affectedRows, sql: text = "" } = statements[index] ?? {};
        if (rows.affectedRows !== rowsExpected) {
          // Without its values: they may be payment details.
          throw new RowsChangedError(`${rows.affectedRows} of ${rowsExpected} rows matched: ${text.slice(0, 60)} …`);
        }
        return [];
      });
    },
  };
}

/**
 * A statement that is followed by others whatever it matched, by the COMMIT above all, is followed by one that the server
 * refuses unless it matched what it should: a number that is out of range.
 */
function guarded(statement: Statement): readonly Statement[] {
  if (statement.rowsExpected === undefined) return [statement];
  return [statement, { sql: `SELECT ${2n ** 63n - 1n} + (ROW_COUNT() <> ?)`, values: [statement.rowsExpected] }];
}

/** 1690: out of range. */
function isGuardsError(error: unknown): boolean {
  return errorNumber(error) === 1690 && /row_count\(\)/i.test((error as Error).message);
}

function joined(statements: readonly Statement[]): Statement {
  return {
    sql: statements.map(({ sql }) => sql).join("; "),
    values: statements.flatMap(({ values }) => values),
  };
}

/** What the driver's pools and connections have in common. */
interface CallbackQueryable {
  query(
    options: { readonly sql: string; readonly timeout: number; readonly values: unknown },
    callback: (error: unknown, result: unknown) => void,
  ): unknown;
}

const sessionSettings = [
  "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
  "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 3",
];

/** The server's own error number, or undefined where the error did not come from a statement's answer. */
export function errorNumber(error: unknown): number | undefined {
  for (const it of causesOf(error)) {
    const { errno, sqlState } = it as Error & { errno?: unknown; sqlState?: unknown };
    if (typeof errno === "number" && typeof sqlState === "string" && sqlState !== "") return errno;
  }
  return undefined;
}

function isServerError(error: unknown): boolean {
  return errorNumber(error) !== undefined && (error as { fatal?: boolean }).fatal !== true;
}

/** Shutting down, interrupted, killed. */
const cutShortNumbers: ReadonlySet<number | undefined> = new Set([1053, 1317, 1927, 3169]);

/** Whether the server was stopped in a statement, which it may have carried out all the same. */
export function isCutShort(error: unknown): boolean {
  return cutShortNumbers.has(errorNumber(error));
}

/** What an error means that came in answer to a packet with COMMIT in it. Otherwise one of the server's ended it before. */
function commitErrorOf(error: unknown): unknown {
  if (isServerError(error) && !isCutShort(error)) return error;
  return new CommitOutcomeUnknownError("The answer to COMMIT was lost.", { cause: error });
}

/** The driver's own: refused, reset, timed out, pool exhausted or closed. No statement is at fault. */
function isDriverError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof DomainError) return false;
  return (
    typeof (error as { code?: unknown }).code === "string" ||
    /^(Queue limit reached|Pool is closed)/.test(error.message)
  );
}

/**
 * Servers' numbers that say nothing of the statement: disk full (1021, 1114), too many connections, shutting down,
 * network, killed, read-only, and what is still transient after the last try.
 */
const outageNumbers: ReadonlySet<number> = new Set([
  1020, 1026, 1030, 1021, 1040, 1042, 1043, 1053, 1077, 1079, 1114, 1158, 1159, 1160, 1161, 1184, 1205, 1213, 1290,
  1792, 1836, 1927,
]);

/** Nobody could have succeeded: the database is away, or not ready. Asking again later may help. */
export function isOutage(error: unknown): boolean {
  if (error instanceof UnavailableError) return true;
  const number = errorNumber(error);
  return number === undefined ? isDriverError(error) : outageNumbers.has(number);
}

/** Deadlock, lock wait timed out, and MariaDB's "record has changed since last read": do the transaction again. */
export function isTransient(error: unknown): boolean {
  return [1213, 1205, 1020].includes(errorNumber(error) ?? 0);
}

/** A row with this key is there already. */
export function isDuplicateKey(error: unknown): boolean {
  return [1062, 1586].includes(errorNumber(error) ?? 0);
}

/** The statement's data is at fault, and will be at every try: too long, malformed, out of range, NULL, CHECK, foreign key. */
export function isDataError(error: unknown): boolean {
  return [1406, 1366, 1264, 1265, 1292, 1048, 3819, 4025, 1451, 1452, 1216, 1217].includes(errorNumber(error) ?? 0);
}

/** Inserts all rows in one statement; nothing for no rows. A duplicate key is thrown, see {@link isDuplicateKey}. */
export async function insertRows(
  database: Queryable,
  table: string,
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): Promise<void> {
  await database.pipeline(insertStatements(table, columns, rows));
}

/** What {@link insertRows} does, to go with others in one round trip. */
export function insertStatements(
  table: string,
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): readonly Statement[] {
  if (rows.length === 0) return [];
  return [{ sql: `INSERT INTO ${table} (${columns.join(", ")}) VALUES ?`, values: [rows] }];
}

/** Up to this many rows a CASE for each column is cheaper than a derived table; its cost grows with the square. */
const caseRowsMax = 50;

/**
 * Updates many rows, each to its own values, in one statement that must match them all; none for no rows.
 * @param update.columns the key column first; then the columns that are set.
 * @param update.also further assignments, as SQL over `target` (the row) and `next` (its new values).
 * @param update.guard a condition over `target` and `next` that every row must meet.
 * @param update.inputs names of values that `also` and `guard` use and that are no columns to set.
 */
export function updateStatements(update: RowsUpdate): readonly Statement[] {
  const { length } = update.rows;
  if (length === 0) return [];
  const statement = length <= caseRowsMax ? updateByCase(update) : updateByDerivedTable(update);
  return [{ ...statement, rowsExpected: length }];
}

export interface RowsUpdate {
  readonly table: string;
  readonly columns: readonly [key: string, ...rest: string[]];
  readonly inputs?: readonly string[];
  readonly rows: readonly (readonly SqlValue[])[];
  readonly also?: string;
  readonly guard?: string;
}

/** `next.name` becomes a CASE over the key. */
function updateByCase({ table, columns, inputs = [], rows, also, guard }: RowsUpdate): Statement {
  const [key, ...rest] = columns;
  const names = [...columns, ...inputs];
  const values: SqlValue[] = [];
  const spelledOut = (sql: string) =>
    sql.replace(/\bnext\.(\w+)/g, (_, name: string) => {
      const index = names.indexOf(name);
      if (index < 0) throw new Error(`next.${name} is neither a column nor an input.`);
      for (const row of rows) values.push(row[0] ?? null, row[index] ?? null);
      return `CASE target.${key}${" WHEN ? THEN ?".repeat(rows.length)} END`;
    });
  const assignments = rest.map((name) => `target.${name} = next.${name}`);
  if (also !== undefined) assignments.push(also);
  const set = spelledOut(assignments.join(", "));
  const keys = `target.${key} IN (${rows.map(() => "?").join(", ")})`;
  values.push(...rows.map((row) => row[0] ?? null));
  const where = guard === undefined ? keys : `${keys} AND ${spelledOut(guard)}`;
  return { sql: `UPDATE ${table} AS target SET ${set} WHERE ${where}`, values };
}

/** `next` is a table of its own, made of the values. */
function updateByDerivedTable({ table, columns, inputs = [], rows, also, guard }: RowsUpdate): Statement {
  const [key, ...rest] = columns;
  const names = [...columns, ...inputs];
  const first = `SELECT ${names.map((name) => `? AS ${name}`).join(", ")}`;
  const other = ` UNION ALL SELECT ${names.map(() => "?").join(", ")}`;
  const assignments = rest.map((name) => `target.${name} = next.${name}`);
  if (also !== undefined) assignments.push(also);
  const sql = `UPDATE (${first}${other.repeat(rows.length - 1)}) AS next STRAIGHT_JOIN ${table} AS target
       ON target.${key} = next.${key}${guard === undefined ? "" : ` AND ${guard}`}
     SET ${assignments.join(", ")}`;
  return { sql, values: rows.flat() };
}
