import { type MigrationMeta, readMigrationFiles } from "drizzle-orm/migrator";
import type { Queryable } from "./database.ts";
import { errorNumber, isInterrupted } from "./database-errors.ts";
import { queryableOf } from "./queryable.ts";
import { openSessions } from "./sessions.ts";

/** The table that drizzle's own migrator uses. */
const appliedTable = "__drizzle_migrations";
/**
 * Progress of the migration that has not finished, if any. DDL commits by itself, so a migration of several statements
 * cannot be one transaction. This table records how many of them have run and whether the next one may have run.
 */
const progressTable = "migration_under_way";
/** The tables in which migrations are recorded. Only the user that migrates needs them. */
export const migrationTables: readonly string[] = [appliedTable, progressTable];
/** How a server answers DDL that has run before: the table, column, index or constraint exists already, or is gone. */
const ranBeforeNumbers: ReadonlySet<number | undefined> = new Set([1050, 1051, 1060, 1061, 1068, 1091, 1826, 3822]);
/** A statement may rebuild a large table. */
const statementTimeoutMs = 60 * 60 * 1_000;
/** If this process freezes between two statements, the server soon releases its lock. */
const idleLimits = { inTransactionSeconds: 20, sessionSeconds: 20 };
/** As the servers' default: rows to migrate may be in use. */
const lockWaitSeconds = 50;
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
  const sessions = openSessions({
    url: options.databaseUrl,
    connectionsMax: 1,
    statementTimeoutMs,
    idleLimits,
    lockWaitSeconds,
  });
  // One session for all of it, because the lock belongs to the session.
  const session = await sessions.acquire();
  try {
    await migrateOn(queryableOf(session.query), options.folder, options.lockTimeoutMs ?? 60_000);
  } finally {
    session.giveBack(false);
    await sessions.close();
  }
}

async function migrateOn(session: Queryable, folder: string, lockTimeoutMs: number): Promise<void> {
  // Advisory locks are server-wide, so the lock's name contains the schema.
  const lockSeconds = Math.ceil(lockTimeoutMs / 1_000);
  const [lock] = await session.query(
    "SELECT GET_LOCK(CONCAT('migrate:', LEFT(SHA2(DATABASE(), 256), 40)), ?) AS acquired",
    [lockSeconds],
  );
  if (lock?.acquired !== 1) throw new Error(`Another process has been migrating for ${lockSeconds} s.`);
  await session.execute(
    `CREATE TABLE IF NOT EXISTS ${appliedTable} (id SERIAL PRIMARY KEY, hash TEXT NOT NULL, created_at BIGINT)`,
  );
  await session.execute(
    `CREATE TABLE IF NOT EXISTS ${progressTable}
       (hash CHAR(64) PRIMARY KEY, statements_run INT UNSIGNED NOT NULL, is_next_running BOOLEAN NOT NULL)`,
  );
  const [applied] = await session.query(`SELECT MAX(created_at) AS latest FROM ${appliedTable}`);
  const latest = Number(applied?.latest ?? Number.NEGATIVE_INFINITY);
  for (const migration of readMigrationFiles({ migrationsFolder: folder })) {
    if (migration.folderMillis > latest) await apply(session, migration);
  }
}

async function apply(session: Queryable, { hash, sql: statements, folderMillis }: MigrationMeta): Promise<void> {
  const saveProgress = (run: number, isNextRunning: boolean) =>
    session.execute(`REPLACE INTO ${progressTable} VALUES (?, ?, ?)`, [hash, run, isNextRunning]);
  const [progress] = await session.query(`SELECT * FROM ${progressTable} WHERE hash = ?`, [hash]);
  const first = Number(progress?.statements_run ?? 0);
  let mayHaveRun = progress?.is_next_running === 1;
  for (const [index, statement] of statements.entries()) {
    if (index < first) continue;
    if (changesRows.test(statement)) {
      await session.execute("START TRANSACTION");
      await session.execute(statement);
      await saveProgress(index + 1, false);
      await session.execute("COMMIT");
      mayHaveRun = false;
      continue;
    }
    await saveProgress(index, true);
    try {
      await session.execute(statement);
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
  await session.execute("START TRANSACTION");
  await session.execute(`INSERT INTO ${appliedTable} (hash, created_at) VALUES (?, ?)`, [hash, folderMillis]);
  await session.execute(`DELETE FROM ${progressTable} WHERE hash = ?`, [hash]);
  await session.execute("COMMIT");
}
