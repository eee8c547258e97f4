/** For integration tests: the real database server, a schema of its own for each test file, and waiting without fixed sleeps. */
import { createServer } from "node:net";
import { join } from "node:path";
import { createConnection, type RowDataPacket } from "mysql2/promise";
import { environment, type HostPort, hostPorts, readConfig, text } from "./config.ts";
import { type Database, openDatabase, type Transaction } from "./database.ts";
import { migrate } from "./migrate.ts";

/** The servers that `npm test` started for the integration tests. @throws Error if there are none. */
export function testServers(): { readonly databaseAdminUrl: string; readonly kafkaBrokers: readonly HostPort[] } {
  const env = environment();
  if (env.TEST_DATABASE_ADMIN_URL === undefined) {
    throw new Error("Integration tests need servers: run them with npm test -- PART_OF_A_PATH");
  }
  return readConfig(env, {
    databaseAdminUrl: text("TEST_DATABASE_ADMIN_URL"),
    kafkaBrokers: hostPorts("TEST_KAFKA_BROKERS"),
  });
}

/** A database schema for one test file. */
export interface TestSchema {
  readonly name: string;
  readonly url: string;
  /** Opens a pool that `drop` closes. */
  open(connectionsMax?: number): Database;
  drop(): Promise<void>;
}

/** Creates an empty schema with the stack's character set and collation. */
export async function createTestSchema(): Promise<TestSchema> {
  const { databaseAdminUrl } = testServers();
  const name = `test_${crypto.randomUUID().replaceAll("-", "")}`;
  await administer(`CREATE DATABASE ${name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`);
  const url = `${databaseAdminUrl}/${name}`;
  const opened: Database[] = [];
  return {
    name,
    url,
    open(connectionsMax = 4) {
      const database = openDatabase({ url, connectionsMax });
      opened.push(database);
      return database;
    },
    async drop() {
      await Promise.all(opened.map((database) => database.close().catch(() => undefined)));
      await administer(`DROP DATABASE ${name}`);
    },
  };
}

/** Creates a schema and applies the service's migrations to it. */
export async function createServiceSchema(service: string): Promise<TestSchema> {
  const schema = await createTestSchema();
  await migrate({ databaseUrl: schema.url, folder: join(import.meta.dir, "..", service, "migrations") });
  return schema;
}

/** The server's global status counters whose names are LIKE `pattern`. */
export async function readCounters(pattern: string): Promise<ReadonlyMap<string, number>> {
  const rows = await administer("SHOW GLOBAL STATUS LIKE ?", [pattern]);
  return new Map(rows.map((row) => [String(row.Variable_name), Number(row.Value)]));
}

/** The number of reading and writing statements that the transaction's session has sent, as the server counts them. */
export async function countStatements(transaction: Transaction): Promise<number> {
  const rows = await transaction.query<{ Variable_name: string; Value: string }>(
    `SHOW SESSION STATUS WHERE Variable_name IN
      ('Com_select', 'Com_insert', 'Com_update', 'Com_update_multi', 'Com_delete', 'Com_replace')`,
  );
  return rows.reduce((sum, { Value }) => sum + Number(Value), 0);
}

/** Runs a statement as the server's administrator. */
export async function administer(sql: string, values: readonly unknown[] = []): Promise<RowDataPacket[]> {
  const connection = await createConnection({ uri: testServers().databaseAdminUrl });
  try {
    const [rows] = await connection.query<RowDataPacket[]>(sql, values as unknown[]);
    return rows;
  } finally {
    connection.destroy();
  }
}

/** Repeats `check` until it does not throw. After `timeoutMs` (default 10,000) it throws what `check` threw last. */
export async function eventually<T>(check: () => T | Promise<T>, timeoutMs = 10_000): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** A TCP port of this machine that is free at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("The server has no port.");
  return address.port;
}
