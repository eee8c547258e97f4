/** The audit log: each change by an operator is one row, in the database that was changed. */
import type { Queryable } from "../../services/kit/database.ts";
import { errorNumber } from "../../services/kit/database-errors.ts";
import { DomainError } from "../../services/kit/errors.ts";

/** What an operator asked for. */
export interface OperatorCommand {
  /** At most 128 characters. */
  readonly operator: string;
  /** The verb, for example `discard`. */
  readonly command: string;
  /** The verb's arguments. Stored as JSON. */
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** The name of the audit log's table, one in each database. */
export const auditTable = "ops_audit";
/** The width of the `operator` column, and of an archive's `discarded_by`. */
export const operatorLengthMax = 128;

const definition = `CREATE TABLE IF NOT EXISTS ${auditTable} (
  id CHAR(36) PRIMARY KEY,
  at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  operator VARCHAR(${operatorLengthMax}) NOT NULL,
  command VARCHAR(64) NOT NULL,
  arguments MEDIUMTEXT NOT NULL,
  result MEDIUMTEXT NOT NULL,
  INDEX ${auditTable}_at (at)
) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`;

/** "Table doesn't exist"; and "command denied", which some servers answer to an account without any right on the table. */
const missingErrors = [1146, 1142];
const deniedErrors = [1142, 1044];

/**
 * Creates the audit table if it is missing. Call it outside of any transaction, since DDL commits.
 * @throws DomainError with the statements for an administrator to run, if this account may not create it.
 */
export async function ensureAuditTable(database: Queryable): Promise<void> {
  try {
    // Reads first: CREATE … IF NOT EXISTS needs the right to create even if the table exists.
    await database.query(`SELECT id FROM ${auditTable} LIMIT 0`);
    return;
  } catch (error) {
    if (!missingErrors.includes(errorNumber(error) ?? 0)) throw error;
  }
  try {
    await database.execute(definition);
  } catch (error) {
    if (!deniedErrors.includes(errorNumber(error) ?? 0)) throw error;
    throw new DomainError(
      "FAILED_PRECONDITION",
      `Changes are recorded in the table ${auditTable}. It does not exist or this account may not read it, and this account may not create it. Ask an administrator of the database to run:\n${definition};\nand to grant SELECT, INSERT and UPDATE on it.`,
    );
  }
}

/**
 * Records a command and returns the row's id. For a change that is one transaction, pass that transaction, so that neither
 * exists without the other. Otherwise pass the database at the start, and call {@link recordResult} at the end.
 */
export async function recordCommand(
  queryable: Queryable,
  { operator, command, arguments: given }: OperatorCommand,
  result: Readonly<Record<string, unknown>>,
): Promise<string> {
  const id = Bun.randomUUIDv7();
  await queryable.execute(`INSERT INTO ${auditTable} (id, operator, command, arguments, result) VALUES (?)`, [
    [id, operator, command, JSON.stringify(given), JSON.stringify(result)],
  ]);
  return id;
}

/** Updates the result of a command that is not one transaction. */
export async function recordResult(
  database: Queryable,
  auditId: string,
  result: Readonly<Record<string, unknown>>,
): Promise<void> {
  await database.execute(`UPDATE ${auditTable} SET result = ? WHERE id = ?`, [JSON.stringify(result), auditId]);
}
