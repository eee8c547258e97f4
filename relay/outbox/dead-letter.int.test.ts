/** Rows that can never be published as they stand, on a real database and a real broker. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { type Database, insertRows } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import type { SqlValue } from "../../services/kit/statements.ts";
import { administer, createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { openProducer } from "../kafka/producer.ts";
import { createTestTopic, idOf, keyOf, readTopic, testKafka } from "../testing.ts";
import { deadLetterPayloadMaxBytes } from "./dead-letter.ts";
import { createRelayMetrics } from "./metrics.ts";
import { claimOwnership } from "./ownership.ts";
import { type RelaySource, type RelaySourceOptions, startRelaySource } from "./start-relay.ts";
import { openOutboxStore } from "./store.ts";

const table = "order_outbox_event";
const type = "shop.order.v1.OrderCompleted";

let schema: TestSchema;
let database: Database;
let topic: string;
let deadLetterTopic: string;
const topics: string[] = [];
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open(4);
});
afterAll(() => schema.drop());
beforeEach(async () => {
  await administer(`TRUNCATE TABLE ${schema.name}.${table}`);
  topic = await createTestTopic(3);
  deadLetterTopic = await createTestTopic(1);
  topics.push(topic, deadLetterTopic);
});
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics(topics.splice(0));
  await admin.close();
});

interface Given {
  readonly key: string;
  readonly payload?: string;
  readonly headers?: string | null;
}

/** Inserts rows without the checks of the append, as an operator might by hand. Returns the ids. */
async function insert(events: readonly Given[]): Promise<readonly string[]> {
  const rows = events.map(({ key, payload, headers }): SqlValue[] => [
    Bun.randomUUIDv7(),
    key,
    type,
    payload ?? JSON.stringify({ orderId: key }),
    headers === undefined ? "{}" : headers,
  ]);
  await insertRows(database, table, ["id", "aggregate_id", "type", "payload", "headers"], rows);
  return rows.map(([id]) => String(id));
}

const registry = new Metrics();
const metrics = createRelayMetrics(registry);

function start(change: Partial<RelaySourceOptions> = {}): RelaySource {
  const source = startRelaySource({
    name: "order",
    topic,
    deadLetterTopic,
    ceSource: "/shop/order",
    encoding: "protobuf",
    registry: eventRegistry,
    store: openOutboxStore({ databaseUrl: schema.url, table }),
    ownership: claimOwnership({ databaseUrl: schema.url, schema: schema.name, table, log: silentLogger }),
    openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
    log: silentLogger,
    metrics,
    pollIntervalMs: 50,
    measureIntervalMs: 100,
    attemptsMax: 3,
    retryBackoff: { baseMs: 50, maxMs: 100 },
    ...change,
  });
  closers.push(() => source.close());
  return source;
}

async function stop(): Promise<void> {
  await Promise.all(closers.splice(0).map((close) => close()));
}

async function statusOf(id: string) {
  const [row] = await database.query<{ status: string; retryCount: number; lastError: string | null; waits: number }>(
    `SELECT status, retry_count AS retryCount, last_error AS lastError, next_attempt_at IS NOT NULL AS waits
       FROM ${table} WHERE id = ?`,
    [id],
  );
  return row;
}

async function statuses(): Promise<readonly string[]> {
  const rows = await database.query<{ status: string }>(`SELECT status FROM ${table} ORDER BY seq`);
  return rows.map(({ status }) => status);
}

const expectStatuses = (expected: readonly string[]) =>
  eventually(async () => expect(await statuses()).toEqual([...expected]), 20_000);

async function figure(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number | undefined> {
  const metric = (await registry.getMetricsAsJSON()).find((it) => it.name === name);
  const found = metric?.values.find((it) =>
    Object.entries(labels).every(([label, value]) => (it.labels as Record<string, unknown>)[label] === value),
  );
  return found?.value;
}

const headersOf = (record: TopicRecord | undefined) =>
  Object.fromEntries(Object.entries(record?.headers ?? {}).map(([name, value]) => [name, String(value)]));
const textOf = (record: TopicRecord | undefined) => new TextDecoder().decode(record?.value ?? undefined);
const atLeast = (count: number) => (records: readonly TopicRecord[]) => records.length >= count;

describe("a poison row", () => {
  test("a poison row becomes DEAD after its last attempt, with a dead letter; its key waits, and no other key does", async () => {
    const before = { failed: (await figure("relay_failed_total")) ?? 0, dead: (await figure("relay_dead_total")) ?? 0 };
    const payload = `not JSON ${"😀".repeat(10_000)}`;
    const ids = await insert([
      { key: "a" },
      { key: "b" },
      { key: "a", payload },
      { key: "a" },
      { key: "b" },
      { key: "a" },
    ]);
    const [, , id = ""] = ids;
    start();
    await expectStatuses(["PUBLISHED", "PUBLISHED", "DEAD", "PENDING", "PUBLISHED", "PENDING"]);
    expect(await statusOf(id)).toEqual({
      status: "DEAD",
      retryCount: 3,
      lastError: expect.stringContaining("UnencodablePayloadError"),
      waits: 0,
    });
    const delivered = await readTopic(topic, atLeast(3));
    expect(delivered.map(keyOf).toSorted()).toEqual(["a", "b", "b"]);

    const [letter, ...others] = await readTopic(deadLetterTopic, atLeast(1));
    expect(others).toEqual([]);
    const { ce_time, dead_letter_failed_at, ...headers } = headersOf(letter);
    expect(headers).toMatchObject({
      ce_id: id,
      ce_type: type,
      ce_source: "/shop/order",
      ce_subject: "a",
      ce_sequence: "3",
      dead_letter_source: "order",
      dead_letter_table: `${schema.name}.${table}`,
      dead_letter_row_id: id,
      dead_letter_topic: topic,
      dead_letter_error: expect.stringContaining("UnencodablePayloadError"),
      dead_letter_attempts: "3",
      dead_letter_payload_bytes: String(Buffer.byteLength(payload)),
      dead_letter_payload_cut: "true",
    });
    expect(Date.parse(dead_letter_failed_at ?? "")).toBeGreaterThanOrEqual(Date.parse(ce_time ?? ""));
    expect(letter?.value?.byteLength).toBeLessThanOrEqual(deadLetterPayloadMaxBytes);
    expect(payload.startsWith(textOf(letter))).toBe(true);

    await eventually(async () => {
      expect(await figure("relay_held_keys", { status: "dead" })).toBe(1);
      expect(await figure("relay_held_keys", { status: "failed" })).toBe(0);
      expect(await figure("relay_held_rows")).toBe(2);
      expect(await figure("relay_pending_rows")).toBe(0);
      expect(await figure("relay_oldest_pending_age_seconds")).toBe(0);
    });
    expect((await figure("relay_failed_total")) ?? 0).toBe(before.failed + 1);
    expect((await figure("relay_dead_total")) ?? 0).toBe(before.dead + 1);

    await database.execute(`UPDATE ${table} SET payload = '{}', status = 'PENDING' WHERE id = ?`, [id]);
    await expectStatuses(ids.map(() => "PUBLISHED"));
    const ofKey = (await readTopic(topic, atLeast(6))).filter((record) => keyOf(record) === "a");
    expect(ofKey.map(idOf)).toEqual(ids.filter((_, index) => [0, 2, 3, 5].includes(index)));
  });

  test("a poison row waits longer after each attempt, and is sent before its key's later rows once it is corrected", async () => {
    const ids = await insert([{ key: "a", payload: "not JSON" }, { key: "a" }, { key: "b" }]);
    const [id = ""] = ids;
    const waitsSeconds = async () => {
      const [row] = await database.query<{ seconds: number }>(
        `SELECT TIMESTAMPDIFF(SECOND, CURRENT_TIMESTAMP(3), next_attempt_at) AS seconds FROM ${table} WHERE id = ?`,
        [id],
      );
      return Number(row?.seconds);
    };
    const makeDue = () =>
      database.execute(`UPDATE ${table} SET next_attempt_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND WHERE id = ?`, [
        id,
      ]);
    start({ attemptsMax: 10, retryBackoff: { baseMs: 100_000, maxMs: 300_000 } });
    for (const [attempts, seconds] of [
      [1, 100],
      [2, 200],
      [3, 300],
      [4, 300],
    ] as const) {
      await eventually(async () =>
        expect(await statusOf(id)).toMatchObject({ status: "FAILED", retryCount: attempts }),
      );
      expect(await waitsSeconds()).toBeGreaterThan(seconds - 10);
      expect(await waitsSeconds()).toBeLessThanOrEqual(seconds);
      await Bun.sleep(200);
      expect(await statuses()).toEqual(["FAILED", "PENDING", "PUBLISHED"]);
      if (attempts < 4) await makeDue();
    }
    await database.execute(`UPDATE ${table} SET payload = '{}' WHERE id = ?`, [id]);
    await makeDue();
    await expectStatuses(["PUBLISHED", "PUBLISHED", "PUBLISHED"]);
    const records = await readTopic(topic, atLeast(3));
    expect(records.filter((record) => keyOf(record) === "a").map(idOf)).toEqual(ids.slice(0, 2));
    expect(await statusOf(id)).toMatchObject({ retryCount: 4, waits: 0 });
  });

  test("a poison row becomes FAILED only after the earlier rows of its key are on the topic", async () => {
    let isBrokerUp = false;
    let refused = 0;
    await insert([{ key: "a" }, { key: "a", payload: "not JSON" }, { key: "a" }]);
    start({
      openProducer: async () => {
        const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
        return {
          ...producer,
          async send(to, records) {
            if (isBrokerUp) return await producer.send(to, records);
            refused++;
            throw new Error("away");
          },
        };
      },
      attemptsMax: 100,
    });
    await eventually(() => expect(refused).toBeGreaterThan(2));
    expect(await statuses()).toEqual(["PENDING", "PENDING", "PENDING"]);
    isBrokerUp = true;
    await expectStatuses(["PUBLISHED", "FAILED", "PENDING"]);
  });

  test("a failed row holds its key from its first failed attempt on, also in a pass that follows at once", async () => {
    await insert([{ key: "a", payload: "not JSON" }, { key: "a" }]);
    const source = start({ pollIntervalMs: 60_000, retryBackoff: { baseMs: 60_000, maxMs: 60_000 } });
    await expectStatuses(["FAILED", "PENDING"]);
    for (let key = 0; key < 3; key++) {
      await insert([{ key: `b-${key}` }]);
      source.hint();
      await expectStatuses(["FAILED", "PENDING", ...Array.from({ length: key + 1 }, () => "PUBLISHED")]);
    }
  });

  test("a poison row does not become DEAD before its dead letter is sent, and meanwhile delays no other key", async () => {
    const missing = `test.${crypto.randomUUID()}`;
    const [id = ""] = await insert([{ key: "a", payload: "not JSON" }, { key: "a" }, { key: "b" }]);
    start({ deadLetterTopic: missing, attemptsMax: 2 });
    await expectStatuses(["FAILED", "PENDING", "PUBLISHED"]);
    await Bun.sleep(500);
    await insert([{ key: "c" }]);
    await expectStatuses(["FAILED", "PENDING", "PUBLISHED", "PUBLISHED"]);
    expect(await statusOf(id)).toMatchObject({ status: "FAILED", retryCount: 1 });
    const admin = await openAdmin(testKafka());
    await admin.createTopics([{ topic: missing, partitions: 1, replication: 1, config: {} }]);
    await admin.close();
    topics.push(missing);
    await expectStatuses(["DEAD", "PENDING", "PUBLISHED", "PUBLISHED"]);
    expect((await readTopic(missing, atLeast(1))).map(idOf)).toEqual([id]);
  });

  test("a crash between a dead letter and its mark repeats the dead letter", async () => {
    const [id = ""] = await insert([{ key: "a", payload: "not JSON" }]);
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    let lost = false;
    start({
      attemptsMax: 1,
      store: {
        ...store,
        async markDead(attempt) {
          if (lost) return await store.markDead(attempt);
          lost = true;
          throw new Error("gone away");
        },
      },
    });
    await expectStatuses(["DEAD"]);
    expect(await statusOf(id)).toMatchObject({ retryCount: 1 });
    expect((await readTopic(deadLetterTopic, atLeast(2))).map(idOf)).toEqual([id, id]);
  });
});

test("if two relays count the same attempt, only one succeeds, and a published or dead row does not change", async () => {
  const [id = ""] = await insert([{ key: "a" }]);
  const store = openOutboxStore({ databaseUrl: schema.url, table });
  closers.push(store.close);
  const attempt = { id, failedAttempts: 0, error: "e", countsAttempt: true, delayMs: 0 };
  expect(await Promise.all([store.markFailed(attempt), store.markFailed(attempt)])).toContain(false);
  expect(await statusOf(id)).toMatchObject({ status: "FAILED", retryCount: 1 });
  expect(await store.markDead({ id, failedAttempts: 0, error: "e" })).toBe(false);
  await database.execute(`UPDATE ${table} SET status = 'PUBLISHED' WHERE id = ?`, [id]);
  expect(await store.markFailed({ ...attempt, failedAttempts: 1 })).toBe(false);
  expect(await store.markDead({ id, failedAttempts: 1, error: "e" })).toBe(false);
  expect(await store.failedAttemptsOf(id)).toBeUndefined();
  expect(await statuses()).toEqual(["PUBLISHED"]);
});

test("a failed row is not attempted before an earlier unpublished row of its key", async () => {
  const [first = "", second = ""] = await insert([{ key: "a" }, { key: "a" }]);
  await database.execute(`UPDATE ${table} SET status = 'FAILED', next_attempt_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, [
    second,
  ]);
  const store = openOutboxStore({ databaseUrl: schema.url, table });
  closers.push(store.close);
  const due = async () => (await store.takeDue({ exceptKeys: [], limit: 10 })).map(({ id }) => id);
  for (const status of ["PENDING", "FAILED", "DEAD"]) {
    await database.execute(`UPDATE ${table} SET status = ? WHERE id = ?`, [status, first]);
    expect(await due()).toEqual([]);
  }
  await database.execute(`UPDATE ${table} SET status = 'PUBLISHED' WHERE id = ?`, [first]);
  expect(await due()).toEqual([second]);
});

test("a broker outage in the middle of a drain counts against no row, poison or not", async () => {
  const [poison = ""] = await insert([{ key: "poison", payload: "not JSON" }]);
  await insert(Array.from({ length: 3_000 }, (_, index) => ({ key: `key-${index % 50}` })));
  let sends = 0;
  let outageUntilMs = Number.POSITIVE_INFINITY;
  start({
    attemptsMax: 10,
    retryBackoff: { baseMs: 60_000, maxMs: 60_000 },
    openProducer: async () => {
      const isAway = sends >= 3 && performance.now() < outageUntilMs;
      // Nothing listens on port 1, so the error is the client's own.
      const brokers = isAway ? [{ host: "127.0.0.1", port: 1 }] : testKafka().brokers;
      const producer = await openProducer({ ...testKafka(), brokers, timeoutMs: 2_000 });
      return {
        ...producer,
        async send(to, records) {
          if (++sends === 3) {
            outageUntilMs = performance.now() + 1_500;
            // The records arrive, and the answer is lost.
            await producer.send(to, records);
            throw new Error("Sending took longer than 2000 ms.");
          }
          await producer.send(to, records);
        },
      };
    },
  });
  const published = async () =>
    await database.query(`SELECT COUNT(*) AS n FROM ${table} WHERE status = 'PUBLISHED' AND retry_count = 0`);
  await eventually(async () => expect(await published()).toEqual([{ n: 3_000 }]), 20_000);
  expect(sends).toBeGreaterThan(3);
  expect(await statusOf(poison)).toMatchObject({ status: "FAILED", retryCount: 1 });
});

describe("inserted by hand", () => {
  const cases: readonly (readonly [string, Omit<Given, "key"> & { readonly key?: string }, "PUBLISHED" | "DEAD"])[] = [
    ["a payload of 5 MiB", { payload: JSON.stringify({ orderId: "x".repeat(5 * 1_024 * 1_024) }) }, "DEAD"],
    ["a payload that is not JSON", { payload: "{orderId}" }, "DEAD"],
    ["a payload of another shape", { payload: '{"orderId":7}' }, "DEAD"],
    ["an empty payload", { payload: "" }, "DEAD"],
    ["a NUL in the payload", { payload: '{"orderId":"a\0b"}' }, "DEAD"],
    ["a lone surrogate in a value", { payload: '{"orderId":"a\\ud83d"}' }, "DEAD"],
    ["a NUL and 4-byte characters in a value", { payload: '{"orderId":"a\\u0000b😀"}' }, "PUBLISHED"],
    ["a key of 128 characters", { key: "k".repeat(128) }, "PUBLISHED"],
    ["a key of 128 4-byte characters", { key: "😀".repeat(128) }, "PUBLISHED"],
    ["headers that are not JSON", { headers: "traceparent=1" }, "DEAD"],
    ["headers that are not an object", { headers: "7" }, "DEAD"],
    ["no headers", { headers: null }, "PUBLISHED"],
  ];

  test("of rows that were inserted by hand, the valid ones are published and the others become DEAD", async () => {
    const given = cases.map(([, event], index) => ({ key: `key-${index}`, ...event }));
    const ids = await insert([...given, { key: "other" }]);
    start({ attemptsMax: 2 });
    await eventually(async () => {
      const found = await statuses();
      expect(cases.map(([what], index) => [what, found[index]])).toEqual(
        cases.map(([what, , status]) => [what, status]),
      );
      expect(found.at(-1)).toBe("PUBLISHED");
    }, 20_000);
    const expected = (status: string) => ids.filter((_, index) => (cases[index]?.[2] ?? "PUBLISHED") === status);
    const delivered = await readTopic(topic, atLeast(expected("PUBLISHED").length));
    expect(delivered.map(idOf).toSorted()).toEqual(expected("PUBLISHED").toSorted());
    expect(delivered.map(keyOf)).toEqual(expect.arrayContaining(["k".repeat(128), "😀".repeat(128)]));
    const letters = await readTopic(deadLetterTopic, atLeast(expected("DEAD").length));
    expect(letters.map(idOf).toSorted()).toEqual(expected("DEAD").toSorted());
    const large = letters.find((letter) => idOf(letter) === ids[0]);
    expect(large?.value?.byteLength).toBe(deadLetterPayloadMaxBytes);
    expect(headersOf(large).dead_letter_error).toContain("message larger than the max message size");
    await stop();
  }, 40_000);
});
