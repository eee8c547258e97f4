import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readMigrationFiles } from "drizzle-orm/migrator";
import { migrate } from "./migrate.ts";
import { createTestSchema, type TestSchema } from "./testing.ts";

const statements = [
  "CREATE TABLE thing (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)",
  "CREATE INDEX thing_name ON thing (name)",
  "ALTER TABLE thing ADD size INT",
  "UPDATE thing SET size = 1 WHERE size IS NULL",
  "DROP INDEX thing_name ON thing",
  "CREATE INDEX thing_size ON thing (size)",
];
const schemas: TestSchema[] = [];
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "migrations-"));
  await writeMigrations([["0000_first", statements]]);
});

afterAll(async () => {
  await Promise.all(schemas.map((schema) => schema.drop()));
  await rm(folder, { recursive: true });
});

async function writeMigrations(migrations: readonly (readonly [string, readonly string[]])[]): Promise<void> {
  await mkdir(join(folder, "meta"), { recursive: true });
  for (const [tag, all] of migrations)
    await writeFile(join(folder, `${tag}.sql`), all.join("--> statement-breakpoint\n"));
  const entries = migrations.map(([tag], idx) => ({ idx, version: "5", when: 1_000 + idx, tag, breakpoints: true }));
  await writeFile(join(folder, "meta/_journal.json"), JSON.stringify({ version: "7", dialect: "mysql", entries }));
}

async function createSchema() {
  const schema = await createTestSchema();
  schemas.push(schema);
  const database = schema.open(1);
  return {
    database,
    migrate: () => migrate({ databaseUrl: schema.url, folder }),
    async shape() {
      const [shown] = await database.query<{ "Create Table": string }>("SHOW CREATE TABLE thing");
      const applied = await database.query("SELECT hash, created_at FROM __drizzle_migrations");
      return {
        thing: shown?.["Create Table"],
        applied,
        underWay: await database.query("SELECT * FROM migration_under_way"),
      };
    },
  };
}

/** A schema as a process leaves it that dies right before, or right after, running the statement `index`. */
async function dieAt(index: number, hasRun: boolean) {
  const schema = await createSchema();
  const { database } = schema;
  await database.execute(
    `CREATE TABLE migration_under_way
       (hash CHAR(64) PRIMARY KEY, statements_run INT UNSIGNED NOT NULL, is_next_running BOOLEAN NOT NULL)`,
  );
  for (const statement of statements.slice(0, hasRun ? index + 1 : index)) await database.execute(statement);
  const [migration] = readMigrationFiles({ migrationsFolder: folder });
  await database.execute("INSERT INTO migration_under_way VALUES (?, ?, ?)", [migration?.hash ?? "", index, true]);
  return schema;
}

test("a migration that was killed at any of its statements continues there", async () => {
  const whole = await createSchema();
  await whole.migrate();
  const wanted = await whole.shape();
  expect(wanted.applied).toHaveLength(1);
  expect(wanted.underWay).toEqual([]);
  for (const index of statements.keys()) {
    for (const hasRun of [false, true]) {
      const killed = await dieAt(index, hasRun);
      await killed.migrate();
      expect(await killed.shape()).toEqual(wanted);
    }
  }
});

test("a migration fails if its table exists already, and does not take that table for its own", async () => {
  const { database, ...schema } = await createSchema();
  await database.execute("CREATE TABLE thing (other INT)");
  await expect(schema.migrate()).rejects.toThrow("already exists");
  // The second attempt fails too: the first one recorded that its statement did not run.
  await expect(schema.migrate()).rejects.toThrow("already exists");
});

test("a second attempt that fails for another reason still knows that the first may have run its statement", async () => {
  const { database, ...schema } = await dieAt(1, true);
  await database.execute("RENAME TABLE thing TO elsewhere");
  await expect(schema.migrate()).rejects.toThrow("doesn't exist");
  await database.execute("RENAME TABLE elsewhere TO thing");
  await schema.migrate();
  expect((await schema.shape()).underWay).toEqual([]);
});

test("only migrations that the database does not have are applied, also by two processes at once", async () => {
  const { database, ...schema } = await createSchema();
  await schema.migrate();
  await database.execute("INSERT INTO thing VALUES (1, 'one', NULL)");
  await schema.migrate();
  await writeMigrations([
    ["0000_first", statements],
    ["0001_second", ["UPDATE thing SET size = 2"]],
  ]);
  await Promise.all([schema.migrate(), schema.migrate()]);
  expect(await database.query("SELECT size FROM thing")).toEqual([{ size: 2 }]);
  expect((await schema.shape()).applied).toHaveLength(2);
  await writeMigrations([["0000_first", statements]]);
});
