/** SQL statements as values: inserts and updates of many rows in one statement, and statements joined into one packet. */
import { errorNumber } from "./database-errors.ts";

/** A value in a statement. Dates are sent in UTC. */
export type SqlValue = string | number | bigint | Date | null;

/** A statement with its values. */
export interface Statement {
  readonly sql: string;
  readonly values: readonly unknown[];
  /** How many rows it must match. Default: any number. */
  readonly rowsExpected?: number;
}

/**
 * The most rows in one statement: above all usual batches, which therefore take one. A server parses a statement with tens of
 * thousands of rows slowly, and may refuse it.
 */
const rowsPerStatementMax = 1_000;

function* inParts<T>(rows: readonly T[]): Generator<readonly T[]> {
  for (let first = 0; first < rows.length; first += rowsPerStatementMax) {
    yield rows.slice(first, first + rowsPerStatementMax);
  }
}

/**
 * Statements that insert all rows, up to 1,000 in each; none for no rows. A duplicate key makes them fail, see
 * `isDuplicateKey`.
 */
export function insertStatements(
  table: string,
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): readonly Statement[] {
  const sql = `INSERT INTO ${table} (${columns.join(", ")}) VALUES ?`;
  return Array.from(inParts(rows), (part) => ({ sql, values: [part] }));
}

/** An update of many rows, each to its own values. */
export interface RowsUpdate {
  readonly table: string;
  /** The key column first, then the columns to set. */
  readonly columns: readonly [key: string, ...rest: string[]];
  /** Names of further values that `also` and `guard` use and that are not columns to set. */
  readonly inputs?: readonly string[];
  /** One value for each column, then one for each input. */
  readonly rows: readonly (readonly SqlValue[])[];
  /** Further assignments, as SQL over `target` (the row) and `next` (its new values). */
  readonly also?: string;
  /** A condition over `target` and `next` that every row must meet. */
  readonly guard?: string;
}

/** With up to this many rows a CASE per column is cheaper than a derived table; its cost grows with the square. */
const caseRowsMax = 50;

/** Statements that update all rows, up to 1,000 in each, and must match each row; none for no rows. */
export function updateStatements(update: RowsUpdate): readonly Statement[] {
  return Array.from(inParts(update.rows), (rows) => {
    const part = { ...update, rows };
    const statement = rows.length <= caseRowsMax ? updateByCase(part) : updateByDerivedTable(part);
    return { ...statement, rowsExpected: rows.length };
  });
}

/** Replaces each `next.name` with a CASE over the key. */
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

/** Joins `next`, a derived table of the values. */
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

/** All statements as one packet of the multi-statement protocol. */
export function joinStatements(statements: readonly Statement[]): Statement {
  return {
    sql: statements.map(({ sql }) => sql).join("; "),
    values: statements.flatMap(({ values }) => values),
  };
}

/**
 * The statement, followed by a check that makes the server fail unless `rowsExpected` rows matched. Needed where more
 * statements follow in the same packet, above all COMMIT: the client would see the wrong count only after they have run.
 * The check adds 1 to the greatest BIGINT, which is out of range.
 */
export function withRowCheck(statement: Statement): readonly Statement[] {
  if (statement.rowsExpected === undefined) return [statement];
  return [statement, { sql: `SELECT ${2n ** 63n - 1n} + (ROW_COUNT() <> ?)`, values: [statement.rowsExpected] }];
}

const outOfRangeNumber = 1690;

/** True for the error that the check of {@link withRowCheck} raises. */
export function isRowCheckError(error: unknown): boolean {
  return errorNumber(error) === outOfRangeNumber && /row_count\(\)/i.test((error as Error).message);
}
