/** The statement methods that databases and transactions have in common. */
import type { ResultSetHeader } from "mysql2";
import type { Queryable, Row } from "./database.ts";
import { RowsChangedError } from "./database-errors.ts";
import type { Query } from "./sessions.ts";
import { joinStatements } from "./statements.ts";

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
