import { afterEach, beforeEach, expect, test } from "bun:test";
import type { Database } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { administer, createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { createTestTopic, testKafka } from "../testing.ts";
import { archiveStatus, inboxRetentionMs, pruneArchive, pruneInbox, runArchive, startInboxPruning } from "./archive.ts";

const tables = { outboxTable: "order_outbox_event", archiveTable: "order_outbox_event_archive" };
let schema: TestSchema;
let database: Database;
beforeEach(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterEach(() => schema.drop());

const hourMs = 3_600_000;

/** Rows of a status, published so many hours ago. */
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

async function inboxRow(hoursAgo: number, outcome = "HANDLED") {
  await database.execute(
    `INSERT INTO order_inbox_event (event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition,
       topic_offset, handled_at, batch_id, outcome)
     VALUES (?, 'o', 't', 's', NOW(), NOW(), 0, 0, CURRENT_TIMESTAMP(3) - INTERVAL ? HOUR, 'b', ?)`,
    [Bun.randomUUIDv7(), hoursAgo, outcome],
  );
}

const options = { ...tables, olderThanMs: hourMs, batchSize: 7, pauseMs: 0 };

test("only published rows that are old enough move, whole, with nothing lost or doubled", async () => {
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

test("a crash between insert and delete leaves every row in one place, and the next run goes on", async () => {
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

test("two at once move each row once", async () => {
  await add("PUBLISHED", 200, 2);
  const runs = await Promise.all([1, 2, 3].map(() => runArchive({ ...options, database })));
  // One that finds all rows locked by the others is done early; nothing is left for long.
  await runArchive({ ...options, database });
  expect(runs.reduce((sum, run) => sum + run.moved, 0)).toBeLessThanOrEqual(200);
  expect(await count(tables.archiveTable)).toBe(200);
  expect(await count(tables.outboxTable)).toBe(0);
});

test("an archive and an inbox are pruned by age", async () => {
  await add("PUBLISHED", 10, 2);
  await runArchive({ ...options, database });
  await database.execute("UPDATE order_outbox_event_archive SET archived_at = archived_at - INTERVAL 2 HOUR LIMIT 4");
  expect(await pruneArchive({ ...options, database, batchSize: 3 })).toEqual({ deleted: 4 });
  expect(await count(tables.archiveTable)).toBe(6);
  for (const hoursAgo of [0, 2, 3]) await inboxRow(hoursAgo);
  await inboxRow(3, "PARKED");
  expect(await pruneInbox({ database, service: "order", olderThanMs: hourMs })).toEqual({ deleted: 2 });
  expect(await count("order_inbox_event", "outcome = 'PARKED'")).toBe(1);
  expect(await count("order_inbox_event")).toBe(2);
});

test("an inbox row is kept a day longer than the topic and than the archive keep its event, and goes then", async () => {
  const [topicHours, archiveHours] = [30, 20];
  const day = 24 * hourMs;
  expect(inboxRetentionMs({ topicRetentionMs: 5 * day, archiveRetentionMs: 2 * day })).toBe(6 * day);
  expect(inboxRetentionMs({ topicRetentionMs: 5 * day, archiveRetentionMs: 7 * day })).toBe(8 * day);
  const pruned = async (topic: string, archiveRetentionHours: number, left: number) => {
    const pruning = startInboxPruning({
      ...{ service: "order", database, kafka: testKafka(), topic, archiveRetentionHours },
      ...{ log: silentLogger, intervalMs: 20 },
    });
    await eventually(async () => expect(await count("order_inbox_event")).toBe(left));
    // Some more rounds, which find nothing.
    await Bun.sleep(300);
    await pruning.close();
    expect(await count("order_inbox_event")).toBe(left);
  };
  const topic = await createTestTopic(1, { "retention.ms": String(topicHours * hourMs) });
  for (const hoursAgo of [1, topicHours + 23, topicHours + 25]) await inboxRow(hoursAgo);
  await pruned(topic, archiveHours, 2);
  // The archive keeps events for longer than the topic: it counts.
  await pruned(topic, topicHours + 10, 2);
  await inboxRow(topicHours + 10 + 25);
  await pruned(topic, topicHours + 10, 2);
  // A topic that forgets nothing can bring anything again.
  await inboxRow(10_000);
  await pruned(await createTestTopic(1, { "retention.ms": "-1" }), archiveHours, 3);
});

test("the relay's own account may do all of it", async () => {
  const user = `relay_${schema.name.slice(5, 20)}`;
  await administer(`CREATE USER ${user}@'%' IDENTIFIED BY '${user}'`);
  await administer(`GRANT SELECT, UPDATE, DELETE ON ${schema.name}.${tables.outboxTable} TO ${user}@'%'`);
  await administer(`GRANT SELECT, INSERT, DELETE ON ${schema.name}.${tables.archiveTable} TO ${user}@'%'`);
  await add("PUBLISHED", 3, 2);
  const url = new URL(schema.url);
  url.username = user;
  url.password = user;
  const { openDatabase } = await import("../../services/kit/database.ts");
  const restricted = openDatabase({ url: url.href, connectionsMax: 1 });
  expect(await runArchive({ ...options, database: restricted })).toEqual({ moved: 3 });
  await restricted.close();
  await administer(`DROP USER ${user}@'%'`);
});
