/** Who changed what by hand: one row for each of an operator's changes, in the database that was changed. */

import type { Database, Queryable } from "../../services/kit/database.ts";
import { errorNumber } from "../../services/kit/database-errors.ts";
import { DomainError } from "../../services/kit/errors.ts";
import type { SourceConfig } from "../outbox/config.ts";

/** A source as an operator reaches it: with an account of their own, not the relay's. */
export interface OperatedSource extends SourceConfig {
  readonly database: Database;
}

/** A change as it was asked for. */
export interface OperatorCommand {
  /** Who asked: at most 128 characters. */
  readonly operator: string;
  /** The verb, for example `discard`. */
  readonly command: string;
  /** What the verb was given; becomes JSON. */
  readonly arguments: Readonly<Record<string, unknown>>;
}

const table = "ops_audit";
/** The width of its column, and of an archive's `discarded_by`. */
export const operatorLengthMax = 128;

const definition = `CREATE TABLE IF NOT EXISTS ${table} (
  id CHAR(36) PRIMARY KEY,
  at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  operator VARCHAR(${operatorLengthMax}) NOT NULL,
  command VARCHAR(64) NOT NULL,
  arguments MEDIUMTEXT NOT NULL,
  result MEDIUMTEXT NOT NULL,
  INDEX ${table}_at (at)
) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`;

/** "Table doesn't exist", and "command denied", which some servers say instead to those without any right on it. */
const missing = [1146, 1142];
const denied = [1142, 1044];

/**
 * Makes the audit table where there is none. Outside of any transaction: DDL commits.
 * @throws DomainError that says what an administrator has to run, when this account may not.
 */
export async function ensureAuditTable(database: Queryable): Promise<void> {
  try {
    // Asked first: CREATE … IF NOT EXISTS takes the right to create also where there is nothing to do.
    await database.query(`SELECT id FROM ${table} LIMIT 0`);
    return;
  } catch (error) {
    if (!missing.includes(errorNumber(error) ?? 0)) throw error;
  }
  try {
    await database.execute(definition);
  } catch (error) {
    if (!denied.includes(errorNumber(error) ?? 0)) throw error;
    throw new DomainError(
      "FAILED_PRECONDITION",
      `Changes are recorded in ${table}, which is not there, and this account may not create it. Let an administrator of the database run:\n${definition};\nand grant SELECT, INSERT and UPDATE on it.`,
    );
  }
}

/** Records a change, in its transaction: there is neither one without the other. Returns the row's id. */
export async function recordCommand(
  transaction: Queryable,
  { operator, command, arguments: given }: OperatorCommand,
  result: Readonly<Record<string, unknown>>,
): Promise<string> {
  const id = Bun.randomUUIDv7();
  await transaction.execute(`INSERT INTO ${table} (id, operator, command, arguments, result) VALUES (?)`, [
    [id, operator, command, JSON.stringify(given), JSON.stringify(result)],
  ]);
  return id;
}

/** For a change that is no transaction: recorded when it begins, with what is known then, and again when it ends. */
export async function recordResult(
  database: Queryable,
  auditId: string,
  result: Readonly<Record<string, unknown>>,
): Promise<void> {
  await database.execute(`UPDATE ${table} SET result = ? WHERE id = ?`, [JSON.stringify(result), auditId]);
}
