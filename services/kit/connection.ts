/** Sends statements over one connection of a pool. */
import type { PoolConnection, ResultSetHeader } from "mysql2/promise";
import type { Queryable, Row } from "./database.ts";
import { RowsChangedError } from "./database-errors.ts";
import { isRowCheckError, joinStatements } from "./statements.ts";

/** Sends one packet. Resolves to the driver's result, or to a list of results if the packet held several statements. */
export type Query = (sql: string, values: readonly unknown[]) => Promise<unknown>;

/** The connection's callback interface, which is missing from the driver's promise types. */
interface CallbackConnection {
  query(
    options: { readonly sql: string; readonly timeout: number; readonly values: unknown },
    callback: (error: unknown, result: unknown) => void,
  ): unknown;
}

/**
 * Queries on one connection, each limited to `timeoutMs`.
 * Uses the driver's callbacks: its promises capture a stack trace per statement, a tenth of a busy process's CPU.
 */
export function queryOn(pooled: PoolConnection, timeoutMs: number): Query {
  const connection = pooled.connection as unknown as CallbackConnection;
  return (sql, values) =>
    new Promise((resolve, reject) => {
      connection.query({ sql, timeout: timeoutMs, values }, (error, result) => {
        if (isRowCheckError(error))
          reject(new RowsChangedError("Rows changed after they were read.", { cause: error }));
        else if (error) reject(error);
        else resolve(result);
      });
    });
}

/** Returns a usable connection to the pool and closes any other. */
export function giveBack(connection: PoolConnection, isUsable: boolean): void {
  if (isUsable) connection.release();
  else connection.destroy();
}

/** The statement methods of a database or a transaction, built on the function that sends its packets. */
export function queryableOf(query: Query): Queryable {
  return {
    query: async <R extends Row>(sql: string, values: readonly unknown[] = []) => (await query(sql, values)) as R[],
    execute: async (sql, values = []) => ((await query(sql, values)) as ResultSetHeader).affectedRows,
    async pipeline(statements) {
      if (statements.length === 0) return [];
      const { sql, values } = joinStatements(statements);
      const result = await query(sql, values);
      const results = (statements.length === 1 ? [result] : result) as readonly (ResultSetHeader | Row[])[];
      return results.map((rows, index) => {
        if (Array.isArray(rows)) return rows;
        const { rowsExpected = rows.affectedRows, sql: text = "" } = statements[index] ?? {};
        if (rows.affectedRows !== rowsExpected) {
          // Leaves the values out: they may be payment details.
          throw new RowsChangedError(`${rows.affectedRows} of ${rowsExpected} rows matched: ${text.slice(0, 60)} …`);
        }
        return [];
      });
    },
  };
}
