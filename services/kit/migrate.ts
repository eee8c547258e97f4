import { type MigrationMeta, readMigrationFiles } from "drizzle-orm/migrator";
import { type Connection, createConnection, type ResultSetHeader, type RowDataPacket } from "mysql2/promise";
import { errorNumber, isInterrupted } from "./database-errors.ts";

/** The table that drizzle's own migrator uses. */
const appliedTable = "__drizzle_migrations";
/**
 * Progress of the migration that has not finished, if any. DDL commits by itself, so a migration of several statements
 * cannot be one transaction. This table records how many of them have run and whether the next one may have run.
 */
const progressTable = "migration_under_way";
/** How a server answers DDL that has run before: the table, column, index or constraint exists already, or is gone. */
const ranBeforeNumbers: ReadonlySet<number | undefined> = new Set([1050, 1051, 1060, 1061, 1068, 1091, 1826, 3822]);
const changesRows = /^\s*(INSERT|UPDATE|DELETE|REPLACE)\b/i;

/**
 * Applies the migrations in `folder` that the database does not have yet, in order, forward only. Several processes may
 * call it at once: an advisory lock lets one run at a time. If it is killed half-way, the next call continues there and
 * repeats the statement that may have run. That is safe for statements that create, add or drop, but not for a rename.
 * @throws Error when the lock is not free within `lockTimeoutMs` (default 60,000), or when a statement fails.
 */
export async function migrate(options: {
  readonly databaseUrl: string;
  readonly folder: string;
  readonly lockTimeoutMs?: number;
}): Promise<void> {
  const connection = await createConnection({ uri: options.databaseUrl, timezone: "Z", charset: "UTF8MB4_BIN" });
  try {
    // Advisory locks are server-wide, so the lock's name contains the schema.
    const lockSeconds = Math.ceil((options.lockTimeoutMs ?? 60_000) / 1_000);
    const [rows] = await connection.query<RowDataPacket[]>(
      "SELECT GET_LOCK(CONCAT('migrate:', LEFT(SHA2(DATABASE(), 256), 40)), ?) AS acquired",
      [lockSeconds],
    );
    if (rows[0]?.acquired !== 1) throw new Error(`Another process has been migrating for ${lockSeconds} s.`);
    await connection.query(
      `CREATE TABLE IF NOT EXISTS ${appliedTable} (id SERIAL PRIMARY KEY, hash TEXT NOT NULL, created_at BIGINT)`,
    );
    await connection.query(
      `CREATE TABLE IF NOT EXISTS ${progressTable}
         (hash CHAR(64) PRIMARY KEY, statements_run INT UNSIGNED NOT NULL, is_next_running BOOLEAN NOT NULL)`,
    );
    const [applied] = await connection.query<RowDataPacket[]>(`SELECT MAX(created_at) AS latest FROM ${appliedTable}`);
    const latest = Number(applied[0]?.latest ?? Number.NEGATIVE_INFINITY);
    for (const migration of readMigrationFiles({ migrationsFolder: options.folder })) {
      if (migration.folderMillis > latest) await apply(connection, migration);
    }
  } finally {
    connection.destroy();
  }
}

async function apply(connection: Connection, { hash, sql: statements, folderMillis }: MigrationMeta): Promise<void> {
  const saveProgress = (run: number, isNextRunning: boolean) =>
    connection.query<ResultSetHeader>(`REPLACE INTO ${progressTable} VALUES (?, ?, ?)`, [hash, run, isNextRunning]);
  const [rows] = await connection.query<RowDataPacket[]>(`SELECT * FROM ${progressTable} WHERE hash = ?`, [hash]);
  const first = Number(rows[0]?.statements_run ?? 0);
  let mayHaveRun = rows[0]?.is_next_running === 1;
  for (const [index, statement] of statements.entries()) {
    if (index < first) continue;
    if (changesRows.test(statement)) {
      await connection.beginTransaction();
      await connection.query(statement);
      await saveProgress(index + 1, false);
      await connection.commit();
      mayHaveRun = false;
      continue;
    }
    await saveProgress(index, true);
    try {
      await connection.query(statement);
    } catch (error) {
      const number = errorNumber(error);
      if (!mayHaveRun || !ranBeforeNumbers.has(number)) {
        // The server says that this attempt did not run the statement. If no earlier one may have, record that.
        if (number !== undefined && !isInterrupted(error) && !mayHaveRun) await saveProgress(index, false);
        throw error;
      }
    }
    mayHaveRun = false;
    await saveProgress(index + 1, false);
  }
  await connection.beginTransaction();
  await connection.query(`INSERT INTO ${appliedTable} (hash, created_at) VALUES (?, ?)`, [hash, folderMillis]);
  await connection.query(`DELETE FROM ${progressTable} WHERE hash = ?`, [hash]);
  await connection.commit();
}
