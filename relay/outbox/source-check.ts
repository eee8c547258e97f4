/**
 * Checks a source before it is relayed: its tables, their columns and indexes, the account's rights, its topics. Each fault
 * comes with the statement or command that corrects it.
 *
 * A fault is only what a server's answer shows. A server that does not answer is away, and is checked again later.
 */
import { openDatabase, type Queryable } from "../../services/kit/database.ts";
import { errorNumber, SessionRefusedError } from "../../services/kit/database-errors.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import type { SourceConfig } from "./config.ts";

/** Something wrong with a source's configuration, or with the tables and topics that it names. */
export interface SourceFault {
  readonly source: string;
  readonly problem: string;
  /** A statement or command that corrects it. */
  readonly remedy: string;
}

/** The result of checking a server. */
export interface SourceCheck {
  readonly faults: readonly SourceFault[];
  /** Why the server did not answer, so that its faults are unknown. */
  readonly away: Error | undefined;
}

interface Column {
  readonly name: string;
  readonly definition: string;
}

const column = (name: string, definition: string): Column => ({ name, definition });

const eventColumns = [
  column("id", "CHAR(36) NOT NULL"),
  column("aggregate_id", "VARCHAR(128) NOT NULL"),
  column("type", "VARCHAR(128) NOT NULL"),
  column("payload", "MEDIUMTEXT NOT NULL"),
  column("headers", "TEXT NULL"),
  column("occurred_at", "TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)"),
  column("status", "VARCHAR(20) NOT NULL DEFAULT 'PENDING'"),
  column("retry_count", "SMALLINT UNSIGNED NOT NULL DEFAULT 0"),
  column("last_error", "TEXT NULL"),
  column("published_at", "TIMESTAMP(3) NULL"),
];

interface Table {
  readonly columns: readonly Column[];
  /** The leading columns of each required index. The first is the primary key. */
  readonly indexes: readonly (readonly string[])[];
  readonly rights: readonly string[];
}

const outbox: Table = {
  columns: [
    ...eventColumns,
    column("seq", "BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE"),
    column("next_attempt_at", "TIMESTAMP(3) NULL"),
  ],
  // To mark rows; to read pending rows; to find the other rows of a key.
  indexes: [["id"], ["status", "seq"], ["aggregate_id"]],
  rights: ["SELECT", "UPDATE", "DELETE"],
};

const archive: Table = {
  columns: [
    ...eventColumns,
    column("seq", "BIGINT UNSIGNED NOT NULL"),
    column("archived_at", "TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)"),
    column("discarded_by", "VARCHAR(128) NULL"),
    column("discard_reason", "VARCHAR(500) NULL"),
  ],
  indexes: [["id"], ["archived_at"]],
  rights: ["SELECT", "INSERT", "DELETE"],
};

/** The columns of the outbox that the relay changes. */
const updatedColumns = ["status", "retry_count", "last_error", "published_at", "next_attempt_at"];
const connectTimeoutMs = 2_000;
const statementTimeoutMs = 3_000;

const accessDenied = [1045, 1698];
const schemaDenied = [1044];
const unknownSchema = [1049];
const unknownTable = [1146];
const tableDenied = [1142, 1143];

/** Checks a source's database and tables. Never throws and changes nothing. */
export async function checkTables(source: SourceConfig): Promise<SourceCheck> {
  const database = openDatabase({
    url: source.databaseUrl,
    connectionsMax: 1,
    connectTimeoutMs,
    statementTimeoutMs,
  });
  try {
    return { faults: await checkDatabase(source, database), away: undefined };
  } catch (error) {
    if (error instanceof SessionRefusedError) {
      const remedy = "Connect to the database without a proxy, or through one that passes on SET SESSION.";
      return { faults: [{ source: source.name, problem: `databaseUrl: ${error.message}`, remedy }], away: undefined };
    }
    const fault = refusalOf(source, errorNumber(error) ?? 0);
    if (fault !== undefined) return { faults: [fault], away: undefined };
    return { faults: [], away: toError(error) };
  } finally {
    await database.close().catch(() => undefined);
  }
}

/** The fault behind an error that the database answered to a connection by the source's URL; undefined for any other. */
function refusalOf(source: SourceConfig, code: number): SourceFault | undefined {
  const { name, schema } = source;
  const user = decodeURIComponent(new URL(source.databaseUrl).username);
  if (accessDenied.includes(code)) {
    return {
      source: name,
      problem: `databaseUrl: the database rejects the user '${user}' with this password`,
      remedy: `CREATE USER IF NOT EXISTS '${user}'@'%' IDENTIFIED BY '…'; ALTER USER '${user}'@'%' IDENTIFIED BY '…';`,
    };
  }
  if (unknownSchema.includes(code)) {
    return {
      source: name,
      problem: `databaseUrl: the database ${schema} does not exist`,
      remedy: `CREATE DATABASE ${schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;`,
    };
  }
  if (schemaDenied.includes(code)) {
    return {
      source: name,
      problem: `databaseUrl: the user '${user}' has no rights in ${schema}, or this database does not exist`,
      remedy: [grant(source, "outbox", `'${user}'@'%'`), grant(source, "archive", `'${user}'@'%'`)].join(" "),
    };
  }
  return undefined;
}

type Role = "outbox" | "archive";

const tableOf = (source: SourceConfig, role: Role) => (role === "outbox" ? source.outboxTable : source.archiveTable);
const shapeOf = (role: Role) => (role === "outbox" ? outbox : archive);

function grant(source: SourceConfig, role: Role, account: string): string {
  return `GRANT ${shapeOf(role).rights.join(", ")} ON ${source.schema}.${tableOf(source, role)} TO ${account};`;
}

async function checkDatabase(source: SourceConfig, database: Queryable): Promise<readonly SourceFault[]> {
  const [row] = await database.query<{ account: string }>("SELECT CURRENT_USER() AS account");
  const account = String(row?.account).replace(/^(.*)@([^@]*)$/, "'$1'@'$2'");
  const faults: SourceFault[] = [];
  for (const role of ["outbox", "archive"] as const) {
    const table = tableOf(source, role);
    const fault = (problem: string, remedy: string) => faults.push({ source: source.name, problem, remedy });
    const refused = await refusalBy(database, `SELECT 1 FROM ${table} LIMIT 0`);
    if (unknownTable.includes(refused)) {
      fault(`${role}Table: ${source.schema} has no table ${table}`, createTable(source, role));
      continue;
    }
    const columns = await missingColumns(database, source, role);
    if (refused === 0) {
      for (const { name, definition } of columns) {
        const remedy = `ALTER TABLE ${source.schema}.${table} ADD COLUMN ${name} ${definition};`;
        fault(`${role}Table: ${table} has no column ${name}`, remedy);
      }
      for (const index of await missingIndexes(database, source, role)) {
        const remedy = `CREATE INDEX ${indexName(table, index)} ON ${source.schema}.${table} (${index.join(", ")});`;
        fault(`${role}Table: ${table} has no index that begins with (${index.join(", ")})`, remedy);
      }
    }
    // Only on columns that exist, so that a refusal is about the right.
    const present = shapeOf(role)
      .columns.filter((it) => refused !== 0 || !columns.includes(it))
      .map(({ name }) => name);
    const denied: string[] = [];
    for (const [right, statement] of rightProbes(table, role, present)) {
      if (tableDenied.includes(await refusalBy(database, statement))) denied.push(right);
    }
    if (denied.length > 0) {
      // Servers do not tell an account without any right whether the table exists.
      const unknown = refused !== 0 && columns.length === shapeOf(role).columns.length;
      const problem = `${role}Table: ${account} may not ${denied.join(", ")} in ${table}`;
      fault(
        unknown ? `${problem}, or this table does not exist` : problem,
        `${unknown ? createTable(source, role).replace("TABLE", "TABLE IF NOT EXISTS") : ""} GRANT ${denied.join(", ")} ON ${source.schema}.${table} TO ${account};`.trim(),
      );
    }
  }
  return faults;
}

/** For each right, a statement that needs it and affects no row. */
function rightProbes(table: string, role: Role, present: readonly string[]): readonly (readonly [string, string])[] {
  const updated = updatedColumns.filter((name) => present.includes(name));
  const probes: Readonly<Record<string, string | undefined>> = {
    SELECT: `SELECT ${present.join(", ")} FROM ${table} LIMIT 0`,
    UPDATE:
      updated.length === 0
        ? undefined
        : `UPDATE ${table} SET ${updated.map((name) => `${name} = ${name}`).join(", ")} WHERE 1 = 0`,
    INSERT: `INSERT INTO ${table} (${present.join(", ")}) SELECT ${present.map(() => "NULL").join(", ")} FROM DUAL WHERE 1 = 0`,
    DELETE: `DELETE FROM ${table} WHERE 1 = 0`,
  };
  return shapeOf(role).rights.flatMap((right) => {
    const statement = present.length === 0 ? undefined : probes[right];
    return statement === undefined ? [] : [[right, statement] as const];
  });
}

/** The error number by which the server refuses a statement, or 0. @throws any error that is not a refusal. */
async function refusalBy(database: Queryable, statement: string): Promise<number> {
  try {
    await database.query(statement);
    return 0;
  } catch (error) {
    const code = errorNumber(error) ?? 0;
    if (unknownTable.includes(code) || tableDenied.includes(code)) return code;
    throw error;
  }
}

async function missingColumns(database: Queryable, source: SourceConfig, role: Role): Promise<readonly Column[]> {
  const rows = await database.query<{ name: string }>(
    "SELECT COLUMN_NAME AS name FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
    [source.schema, tableOf(source, role)],
  );
  const present = new Set(rows.map(({ name }) => name.toLowerCase()));
  return shapeOf(role).columns.filter(({ name }) => !present.has(name));
}

async function missingIndexes(
  database: Queryable,
  source: SourceConfig,
  role: Role,
): Promise<readonly (readonly string[])[]> {
  const rows = await database.query<{ name: string; columnName: string }>(
    `SELECT INDEX_NAME AS name, COLUMN_NAME AS columnName FROM information_schema.STATISTICS
      WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY INDEX_NAME, SEQ_IN_INDEX`,
    [source.schema, tableOf(source, role)],
  );
  const indexes = Map.groupBy(rows, ({ name }) => name);
  const present = [...indexes.values()].map((parts) => parts.map(({ columnName }) => columnName.toLowerCase()));
  return shapeOf(role).indexes.filter(
    (needed) => !present.some((index) => needed.every((name, position) => index[position] === name)),
  );
}

/** The statement that creates the table as required. */
function createTable(source: SourceConfig, role: Role): string {
  const table = tableOf(source, role);
  const { columns, indexes } = shapeOf(role);
  const [key = [], ...others] = indexes;
  const parts = [
    ...columns.map(({ name, definition }) => `${name} ${definition}`),
    `PRIMARY KEY (${key.join(", ")})`,
    ...others.map((index) => `INDEX ${indexName(table, index)} (${index.join(", ")})`),
  ];
  return `CREATE TABLE ${source.schema}.${table} (${parts.join(", ")}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;`;
}

/** Servers allow names of at most 64 characters. */
function indexName(table: string, index: readonly string[]): string {
  return `${table}_${index.join("_")}`.slice(-64);
}

/** Checks that the sources' topics exist. Never throws and creates nothing. */
export async function checkTopics(sources: readonly SourceConfig[], kafka: KafkaOptions): Promise<SourceCheck> {
  try {
    const admin = await openAdmin(kafka);
    try {
      const present = new Set(await admin.listTopics());
      const faults = sources.flatMap(({ name, topic, deadLetterTopic }) =>
        Object.entries({ topic, deadLetterTopic })
          .filter(([, needed]) => !present.has(needed))
          .map(([field, needed]) => ({
            source: name,
            problem: `${field}: the broker has no topic ${needed}`,
            remedy: createTopic(needed, kafka),
          })),
      );
      return { faults, away: undefined };
    } finally {
      await admin.close().catch(() => undefined);
    }
  } catch (error) {
    return { faults: [], away: toError(error) };
  }
}

function createTopic(topic: string, { brokers }: KafkaOptions): string {
  const servers = brokers.map(({ host, port }) => `${host}:${port}`).join(",");
  return `kafka-topics.sh --bootstrap-server ${servers} --create --topic ${topic} --partitions 12`;
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
