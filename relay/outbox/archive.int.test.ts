import { afterEach, beforeEach, expect, test } from "bun:test";
import { type Database, openDatabase } from "../../services/kit/database.ts";
import { administer, createServiceSchema, type TestSchema } from "../../services/kit/testing.ts";
import { archiveStatus, pruneArchive, runArchive } from "./archive.ts";

const tables = { outboxTable: "order_outbox_event", archiveTable: "order_outbox_event_archive" };
let schema: TestSchema;
let database: Database;
beforeEach(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterEach(() => schema.drop());

const hourMs = 3_600_000;

/** Inserts rows of a status that were published `hoursAgo`. */
async function add(status: string, count: number, hoursAgo: number) {
  const rows = Array.from({ length: count }, () => [
    Bun.randomUUIDv7(),
    "order",
    "t",
    '{"a":"ä"}',
    "{}",
    status,
    3,
    "e",
  ]);
  await database.execute(
    `INSERT INTO order_outbox_event (id, aggregate_id, type, payload, headers, status, retry_count, last_error) VALUES ?`,
    [rows],
  );
  await database.execute(
    `UPDATE order_outbox_event SET published_at = CURRENT_TIMESTAMP(3) - INTERVAL ? HOUR WHERE id IN (?)`,
    [hoursAgo, rows.map((row) => row[0])],
  );
}

const count = async (table: string, where = "1 = 1") =>
  Number((await database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table} WHERE ${where}`))[0]?.n);

const options = { ...tables, olderThanMs: hourMs, batchSize: 7, pauseMs: 0 };

test("only published rows that are old enough move to the archive, complete, none lost or duplicated", async () => {
  await add("PUBLISHED", 30, 2);
  await add("PENDING", 4, 2);
  await add("FAILED", 2, 2);
  await add("DEAD", 2, 2);
  await add("PUBLISHED", 5, 0);
  const before = await database.query(
    "SELECT * FROM order_outbox_event WHERE status = 'PUBLISHED' ORDER BY seq LIMIT 30",
  );
  expect(await runArchive({ ...options, database })).toEqual({ moved: 30 });
  expect(await runArchive({ ...options, database })).toEqual({ moved: 0 });
  const { next_attempt_at: _, ...first } = before[0] ?? {};
  const archived = await database.query("SELECT * FROM order_outbox_event_archive ORDER BY seq");
  expect(archived.length).toBe(30);
  expect(archived[0]).toMatchObject(first);
  expect(await count(tables.outboxTable)).toBe(13);
  expect(await archiveStatus(database, tables)).toEqual({
    published: 5,
    archived: 30,
    discarded: 0,
    oldestPublishedAt: expect.any(Date),
  });
});

test("a crash between insert and delete leaves every row in one table, and the next run moves them", async () => {
  await add("PUBLISHED", 20, 2);
  const failing: Database = {
    ...database,
    transaction: (work, more) =>
      database.transaction(
        (transaction) =>
          work({
            ...transaction,
            async execute(sql, values) {
              if (sql.startsWith("DELETE")) throw new Error("killed");
              return await transaction.execute(sql, values);
            },
          }),
        more,
      ),
  };
  await expect(runArchive({ ...options, database: failing })).rejects.toThrow("killed");
  expect(await count(tables.outboxTable)).toBe(20);
  expect(await count(tables.archiveTable)).toBe(0);
  expect(await runArchive({ ...options, database })).toEqual({ moved: 20 });
});

test("several runs at once move each row once", async () => {
  await add("PUBLISHED", 200, 2);
  const runs = await Promise.all([1, 2, 3].map(() => runArchive({ ...options, database })));
  // A run that finds all rows locked by the others ends early. The next run moves what is left.
  await runArchive({ ...options, database });
  expect(runs.reduce((sum, run) => sum + run.moved, 0)).toBeLessThanOrEqual(200);
  expect(await count(tables.archiveTable)).toBe(200);
  expect(await count(tables.outboxTable)).toBe(0);
});

test("rows that were published long after they occurred do not keep later rows from the archive", async () => {
  // More than two batches of events that were dead for a day and have just been retried.
  await add("PUBLISHED", 20, 0);
  await database.execute("UPDATE order_outbox_event SET occurred_at = occurred_at - INTERVAL 1 DAY");
  await add("PUBLISHED", 10, 2);
  expect(await runArchive({ ...options, database })).toEqual({ moved: 10 });
  expect(await count(tables.outboxTable)).toBe(20);
});

test("a run reads no further than the first rows that cannot be old enough", async () => {
  await add("PUBLISHED", 10, 2);
  await add("PUBLISHED", 100, 0);
  let transactions = 0;
  const counting: Database = {
    ...database,
    transaction(work, more) {
      transactions++;
      return database.transaction(work, more);
    },
  };
  expect(await runArchive({ ...options, database: counting })).toEqual({ moved: 10 });
  expect(transactions).toBeLessThan(5);
});

test("a run that is behind pauses less, when it archives and when it prunes", async () => {
  await add("PUBLISHED", 210, 2);
  const behind = { ...options, database, pauseMs: 500, behindAfterMs: 0 };
  const startedMs = performance.now();
  // 30 batches each.
  expect(await runArchive(behind)).toEqual({ moved: 210 });
  await database.execute("UPDATE order_outbox_event_archive SET archived_at = archived_at - INTERVAL 2 HOUR");
  expect(await pruneArchive(behind)).toEqual({ deleted: 210 });
  expect(performance.now() - startedMs).toBeLessThan(5_000);
});

test("an archive is pruned by age", async () => {
  await add("PUBLISHED", 10, 2);
  await runArchive({ ...options, database });
  await database.execute("UPDATE order_outbox_event_archive SET archived_at = archived_at - INTERVAL 2 HOUR LIMIT 4");
  expect(await pruneArchive({ ...options, database, batchSize: 3 })).toEqual({ deleted: 4 });
  expect(await count(tables.archiveTable)).toBe(6);
});

test("the privileges of the relay's own account are enough to archive", async () => {
  const user = `relay_${schema.name.slice(5, 20)}`;
  await administer(`CREATE USER ${user}@'%' IDENTIFIED BY '${user}'`);
  await administer(`GRANT SELECT, UPDATE, DELETE ON ${schema.name}.${tables.outboxTable} TO ${user}@'%'`);
  await administer(`GRANT SELECT, INSERT, DELETE ON ${schema.name}.${tables.archiveTable} TO ${user}@'%'`);
  await add("PUBLISHED", 3, 2);
  const url = new URL(schema.url);
  url.username = user;
  url.password = user;
  const restricted = openDatabase({ url: url.href, connectionsMax: 1 });
  expect(await runArchive({ ...options, database: restricted })).toEqual({ moved: 3 });
  await restricted.close();
  await administer(`DROP USER ${user}@'%'`);
});
