import { drizzle } from "drizzle-orm/mysql2";
import { migrate as runMigrations } from "drizzle-orm/mysql2/migrator";
import { createConnection, type RowDataPacket } from "mysql2/promise";

/**
 * Applies the migrations of `folder` that the database has not seen, in order, forward only. Several processes may do
 * so at once: an advisory lock lets one pass at a time.
 * @throws Error when the lock is not free within `lockTimeoutMs` (default 60,000), or a migration fails.
 */
export async function migrate(options: {
  readonly databaseUrl: string;
  readonly folder: string;
  readonly lockTimeoutMs?: number;
}): Promise<void> {
  const connection = await createConnection({ uri: options.databaseUrl, timezone: "Z", charset: "UTF8MB4_BIN" });
  try {
    // Advisory locks are server-wide: the schema belongs in the name.
    const lockSeconds = Math.ceil((options.lockTimeoutMs ?? 60_000) / 1_000);
    const [rows] = await connection.query<RowDataPacket[]>(
      "SELECT GET_LOCK(CONCAT('migrate:', LEFT(SHA2(DATABASE(), 256), 40)), ?) AS acquired",
      [lockSeconds],
    );
    if (rows[0]?.acquired !== 1) throw new Error(`Another process has been migrating for ${lockSeconds} s.`);
    await runMigrations(drizzle(connection), { migrationsFolder: options.folder });
  } finally {
    connection.destroy();
  }
}
