import { afterEach, beforeEach, expect, test } from "bun:test";
import type { Database } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { createTestTopic, testKafka } from "../testing.ts";
import { inboxRetentionMs, pruneInbox, startInboxPruning } from "./pruning.ts";

let schema: TestSchema;
let database: Database;
beforeEach(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterEach(() => schema.drop());

const hourMs = 3_600_000;

async function insertInboxRow(hoursAgo: number, outcome = "HANDLED") {
  await database.execute(
    `INSERT INTO order_inbox_event (event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition,
       topic_offset, handled_at, batch_id, outcome)
     VALUES (?, 'o', 't', 's', NOW(), NOW(), 0, 0, CURRENT_TIMESTAMP(3) - INTERVAL ? HOUR, 'b', ?)`,
    [Bun.randomUUIDv7(), hoursAgo, outcome],
  );
}

const countRows = async (where = "1 = 1") =>
  Number((await database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM order_inbox_event WHERE ${where}`))[0]?.n);

test("an inbox is pruned by age, but never loses a parked event", async () => {
  for (const hoursAgo of [0, 2, 3]) await insertInboxRow(hoursAgo);
  await insertInboxRow(3, "PARKED");
  expect(await pruneInbox({ database, service: "order", olderThanMs: hourMs })).toEqual({ deleted: 2 });
  expect(await countRows("outcome = 'PARKED'")).toBe(1);
  expect(await countRows()).toBe(2);
});

test("an inbox row is kept a day longer than its event on the topic or in the archive, and then deleted", async () => {
  const [topicHours, archiveHours] = [30, 20];
  const day = 24 * hourMs;
  expect(inboxRetentionMs({ topicRetentionMs: 5 * day, archiveRetentionMs: 2 * day })).toBe(6 * day);
  expect(inboxRetentionMs({ topicRetentionMs: 5 * day, archiveRetentionMs: 7 * day })).toBe(8 * day);
  const expectPruned = async (topic: string, archiveRetentionHours: number, rowsLeft: number) => {
    const pruning = startInboxPruning({
      ...{ service: "order", database, kafka: testKafka(), topic, archiveRetentionHours },
      ...{ log: silentLogger, intervalMs: 20 },
    });
    await eventually(async () => expect(await countRows()).toBe(rowsLeft));
    // More rounds delete nothing else.
    await Bun.sleep(300);
    await pruning.close();
    expect(await countRows()).toBe(rowsLeft);
  };
  const topic = await createTestTopic(1, { "retention.ms": String(topicHours * hourMs) });
  for (const hoursAgo of [1, topicHours + 23, topicHours + 25]) await insertInboxRow(hoursAgo);
  await expectPruned(topic, archiveHours, 2);
  // If the archive keeps events longer than the topic does, the archive counts.
  await expectPruned(topic, topicHours + 10, 2);
  await insertInboxRow(topicHours + 10 + 25);
  await expectPruned(topic, topicHours + 10, 2);
  // A topic without retention can deliver any event again.
  await insertInboxRow(10_000);
  await expectPruned(await createTestTopic(1, { "retention.ms": "-1" }), archiveHours, 3);
});
