import type { Database, Queryable } from "../../kit/database.ts";

/** Longer than any page takes. A database that hangs ends the audit with an error. */
const statementTimeoutMs = 60_000;

/** Runs `work` on one consistent snapshot of the database: all of its reads see the same moment. */
export async function inSnapshot<T>(database: Database, work: (query: Queryable["query"]) => Promise<T>): Promise<T> {
  const connection = await database.pool.getConnection();
  const run = (sql: string, values: readonly unknown[] = []) =>
    connection.query({ sql, timeout: statementTimeoutMs }, values as unknown[]);
  let healthy = false;
  try {
    await run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    await run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
    const result = await work(async <R>(sql: string, values?: readonly unknown[]) => {
      const [rows] = await run(sql, values);
      return rows as R[];
    });
    await run("COMMIT");
    healthy = true;
    return result;
  } finally {
    if (healthy) connection.release();
    else connection.destroy();
  }
}
