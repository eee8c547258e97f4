/**
 * Checks a source before it is relayed: its tables, their columns and indexes, the account's privileges, its topics. Each
 * problem comes with the statement or command that corrects it.
 *
 * A problem is only what a server's answer shows for certain. After any other error, the server counts as unchecked, and is
 * checked again later.
 */
import { openDatabase, type Queryable } from "../../services/kit/database.ts";
import { errorNumber, SessionRefusedError } from "../../services/kit/database-errors.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import type { SourceConfig } from "./config.ts";

/** Something wrong with a source's configuration, or with the tables and topics that it names. */
export interface SourceProblem {
  readonly source: string;
  readonly problem: string;
  /** A statement or command that corrects it. */
  readonly remedy: string;
}

/** The result of checking a server. */
export interface SourceCheck {
  readonly problems: readonly SourceProblem[];
  /** Why the server could not be checked; undefined if it was. */
  readonly error: Error | undefined;
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
  readonly privileges: readonly string[];
}

const outbox: Table = {
  columns: [
    ...eventColumns,
    column("seq", "BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE"),
    column("next_attempt_at", "TIMESTAMP(3) NULL"),
  ],
  // To mark rows; to read pending rows; to find the other rows of a key.
  indexes: [["id"], ["status", "seq"], ["aggregate_id"]],
  privileges: ["SELECT", "UPDATE", "DELETE"],
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
  privileges: ["SELECT", "INSERT", "DELETE"],
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
    return { problems: await checkDatabase(source, database), error: undefined };
  } catch (error) {
    if (error instanceof SessionRefusedError) {
      const remedy = "Connect to the database without a proxy, or through one that passes on SET SESSION.";
      const problem = { source: source.name, problem: `databaseUrl: ${error.message}`, remedy };
      return { problems: [problem], error: undefined };
    }
    const problem = connectionProblemOf(source, errorNumber(error) ?? 0);
    if (problem !== undefined) return { problems: [problem], error: undefined };
    return { problems: [], error: toError(error) };
  } finally {
    await database.close().catch(() => undefined);
  }
}

/** The problem with the source's URL that an error number of the server shows; undefined for any other number. */
function connectionProblemOf(source: SourceConfig, number: number): SourceProblem | undefined {
  const { name, schema } = source;
  const user = decodeURIComponent(new URL(source.databaseUrl).username);
  if (accessDenied.includes(number)) {
    return {
      source: name,
      problem: `databaseUrl: the database rejects the user '${user}' with this password`,
      remedy: `CREATE USER IF NOT EXISTS '${user}'@'%' IDENTIFIED BY '…'; ALTER USER '${user}'@'%' IDENTIFIED BY '…';`,
    };
  }
  if (unknownSchema.includes(number)) {
    return {
      source: name,
      problem: `databaseUrl: the database ${schema} does not exist`,
      remedy: `CREATE DATABASE ${schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;`,
    };
  }
  if (schemaDenied.includes(number)) {
    return {
      source: name,
      problem: `databaseUrl: the user '${user}' has no privileges in ${schema}, or this database does not exist`,
      remedy: [grant(source, "outbox", `'${user}'@'%'`), grant(source, "archive", `'${user}'@'%'`)].join(" "),
    };
  }
  return undefined;
}

type Role = "outbox" | "archive";

const tableOf = (source: SourceConfig, role: Role) => (role === "outbox" ? source.outboxTable : source.archiveTable);
const shapeOf = (role: Role) => (role === "outbox" ? outbox : archive);

function grant(source: SourceConfig, role: Role, account: string): string {
  return `GRANT ${shapeOf(role).privileges.join(", ")} ON ${source.schema}.${tableOf(source, role)} TO ${account};`;
}

async function checkDatabase(source: SourceConfig, database: Queryable): Promise<readonly SourceProblem[]> {
  const [row] = await database.query<{ account: string }>("SELECT CURRENT_USER() AS account");
  const account = String(row?.account).replace(/^(.*)@([^@]*)$/, "'$1'@'$2'");
  const problems: SourceProblem[] = [];
  for (const role of ["outbox", "archive"] as const) {
    const table = tableOf(source, role);
    const report = (problem: string, remedy: string) => problems.push({ source: source.name, problem, remedy });
    const selectError = await refusalNumberOf(database, `SELECT 1 FROM ${table} LIMIT 0`);
    if (unknownTable.includes(selectError)) {
      report(`${role}Table: ${source.schema} has no table ${table}`, createTable(source, role));
      continue;
    }
    const missing = await missingColumns(database, source, role);
    if (selectError === 0) {
      for (const { name, definition } of missing) {
        const remedy = `ALTER TABLE ${source.schema}.${table} ADD COLUMN ${name} ${definition};`;
        report(`${role}Table: ${table} has no column ${name}`, remedy);
      }
      for (const index of await missingIndexes(database, source, role)) {
        const remedy = `CREATE INDEX ${indexName(table, index)} ON ${source.schema}.${table} (${index.join(", ")});`;
        report(`${role}Table: ${table} has no index that begins with (${index.join(", ")})`, remedy);
      }
    }
    // Only existing columns are probed, so that a refusal can only mean a missing privilege. An account without SELECT sees
    // no columns: then all are assumed to exist.
    const present = shapeOf(role)
      .columns.filter((it) => selectError !== 0 || !missing.includes(it))
      .map(({ name }) => name);
    const denied: string[] = [];
    for (const [privilege, statement] of privilegeProbes(table, role, present)) {
      if (tableDenied.includes(await refusalNumberOf(database, statement))) denied.push(privilege);
    }
    if (denied.length > 0) {
      // To an account without any privilege on a table, servers do not say whether the table exists.
      const unknown = selectError !== 0 && missing.length === shapeOf(role).columns.length;
      const problem = `${role}Table: ${account} lacks ${denied.join(", ")} on ${table}`;
      report(
        unknown ? `${problem}, or this table does not exist` : problem,
        `${unknown ? createTable(source, role).replace("TABLE", "TABLE IF NOT EXISTS") : ""} GRANT ${denied.join(", ")} ON ${source.schema}.${table} TO ${account};`.trim(),
      );
    }
  }
  return problems;
}

/** For each privilege, a statement that needs it and affects no row. */
function privilegeProbes(
  table: string,
  role: Role,
  present: readonly string[],
): readonly (readonly [string, string])[] {
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
  return shapeOf(role).privileges.flatMap((privilege) => {
    const statement = present.length === 0 ? undefined : probes[privilege];
    return statement === undefined ? [] : [[privilege, statement] as const];
  });
}

/** The number of the error with which the server refuses a statement; 0 if it runs. @throws any error that is no refusal. */
async function refusalNumberOf(database: Queryable, statement: string): Promise<number> {
  try {
    await database.query(statement);
    return 0;
  } catch (error) {
    const number = errorNumber(error) ?? 0;
    if (unknownTable.includes(number) || tableDenied.includes(number)) return number;
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
      const problems = sources.flatMap(({ name, topic, deadLetterTopic }) =>
        Object.entries({ topic, deadLetterTopic })
          .filter(([, needed]) => !present.has(needed))
          .map(([field, needed]) => ({
            source: name,
            problem: `${field}: the broker has no topic ${needed}`,
            remedy: createTopic(needed, kafka),
          })),
      );
      return { problems, error: undefined };
    } finally {
      await admin.close().catch(() => undefined);
    }
  } catch (error) {
    return { problems: [], error: toError(error) };
  }
}

/**
 * As many partitions as the local stack's topics have (services/stack/provision.ts). Replicas and `min.insync.replicas` are
 * the broker's defaults; ../README.md says what production needs.
 */
function createTopic(topic: string, { brokers }: KafkaOptions): string {
  const servers = brokers.map(({ host, port }) => `${host}:${port}`).join(",");
  return `kafka-topics.sh --bootstrap-server ${servers} --create --topic ${topic} --partitions 12`;
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
