/** The relay on a real database and a real broker. Failures come from wrapped ports or from killed processes. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { environment } from "../../services/kit/config.ts";
import { type Database, insertRows, type Queryable } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import type { SqlValue } from "../../services/kit/statements.ts";
import {
  administer,
  createServiceSchema,
  eventually,
  freePort,
  readCounters,
  type TestSchema,
  testServers,
} from "../../services/kit/testing.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { openProducer, type RecordProducer } from "../kafka/producer.ts";
import {
  createTestTopic,
  distinct,
  firstOccurrences,
  idOf,
  keyOf,
  type RelayProcess,
  readTopic,
  sequenceOf,
  startRelayProcess,
  testKafka,
} from "../testing.ts";
import { openHintSender } from "./hint.ts";
import { createRelayMetrics } from "./metrics.ts";
import { claimOwnership, type Ownership } from "./ownership.ts";
import { lockNameOf } from "./source-lock.ts";
import { type RelaySource, type RelaySourceOptions, startRelaySource } from "./start-relay.ts";
import { type OutboxStore, openOutboxStore, type PendingReader } from "./store.ts";

const table = "order_outbox_event";
const newId = () => Bun.randomUUIDv7();

let schema: TestSchema;
let database: Database;
let topic: string;
const topics: string[] = [];
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open(8);
});
afterAll(() => schema.drop());
beforeEach(async () => {
  await administer(`TRUNCATE TABLE ${schema.name}.${table}`);
  topic = await newTopic(3);
});
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics(topics.splice(0));
  await admin.close();
});

async function newTopic(partitions: number, config?: Readonly<Record<string, string>>): Promise<string> {
  const created = await createTestTopic(partitions, config);
  topics.push(created);
  return created;
}

// Events in the outbox

interface Given {
  readonly key: string;
  readonly type?: string;
  readonly payload?: string;
  readonly status?: string;
}

async function insert(events: readonly Given[], on: Queryable = database): Promise<readonly string[]> {
  const rows = events.map(({ key, type, payload, status }): SqlValue[] => [
    newId(),
    key,
    type ?? "shop.order.v1.OrderCompleted",
    payload ?? JSON.stringify({ orderId: key }),
    "{}",
    status ?? "PENDING",
  ]);
  await insertRows(on, table, ["id", "aggregate_id", "type", "payload", "headers", "status"], rows);
  return rows.map(([id]) => String(id));
}

/** Inserts rows that are published already. */
async function insertPublished(count: number): Promise<void> {
  const digits = Array.from({ length: 10 }, (_, digit) => `SELECT ${digit} AS n`).join(" UNION ALL ");
  const tens = Array.from({ length: Math.ceil(count / 10_000) }, (_, index) => `SELECT ${index}`).join(" UNION ALL ");
  await administer(
    `INSERT INTO ${schema.name}.${table} (id, aggregate_id, type, payload, headers, status, published_at)
     SELECT UUID(), CONCAT('key-', a.n), 'shop.order.v1.OrderCompleted', '{}', '{}', 'PUBLISHED', NOW(3)
       FROM (${digits}) a, (${digits}) b, (${digits}) c, (${digits}) d, (${tens}) e LIMIT ${count}`,
  );
}

const keyed = (count: number, keys: number): Given[] =>
  Array.from({ length: count }, (_, index) => ({ key: `key-${index % keys}` }));

async function countByStatus(): Promise<Readonly<Record<string, number>>> {
  const rows = await database.query<{ status: string; n: number }>(
    `SELECT status, COUNT(*) AS n FROM ${table} GROUP BY status`,
  );
  return Object.fromEntries(rows.map(({ status, n }) => [status, Number(n)]));
}

async function expectAllPublished(count: number, timeoutMs?: number) {
  await eventually(async () => expect(await countByStatus()).toEqual({ PUBLISHED: count }), timeoutMs);
  expect(
    await database.query(`SELECT id FROM ${table} WHERE retry_count <> 0 OR published_at IS NULL OR last_error <> ''`),
  ).toEqual([]);
}

// Records on the topic

/** Returns the sequences of the first occurrences, by key. @throws Error if those of a key are not in order. */
function expectInOrder(records: readonly TopicRecord[]): ReadonlyMap<string, readonly number[]> {
  return new Map([...firstOccurrences(records)].map(([key, occurrences]) => [key, occurrences.map(sequenceOf)]));
}

// The relay under test

const metrics = createRelayMetrics(new Metrics());

interface Started {
  readonly source: RelaySource;
  readonly ownership: Ownership;
}

function start(change: Partial<RelaySourceOptions> = {}): Started {
  const ownership =
    change.ownership ?? claimOwnership({ databaseUrl: schema.url, schema: schema.name, table, log: silentLogger });
  const source = startRelaySource({
    name: "order",
    topic,
    ceSource: "/shop/order",
    encoding: "protobuf",
    registry: eventRegistry,
    store: openOutboxStore({ databaseUrl: schema.url, table }),
    openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
    log: silentLogger,
    metrics,
    ...change,
    ownership,
  });
  closers.push(() => source.close());
  return { source, ownership };
}

/** A store that calls `onRead` after each read from the start. */
function withReadHook(store: OutboxStore, onRead: () => void): OutboxStore {
  return {
    ...store,
    readPending: (options) => store.readPending(options).finally(onRead),
    readHeldKeysAndPending: (options) => store.readHeldKeysAndPending(options).finally(onRead),
  };
}

/** Opens a producer on the real broker that calls `onSend` after each acknowledged send. */
function producerWithHook(onSend: (ids: readonly string[]) => void) {
  return async (): Promise<RecordProducer> => {
    const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
    return {
      ...producer,
      async send(to, records) {
        await producer.send(to, records);
        onSend(records.map(({ headers }) => String(headers.ce_id)));
      },
    };
  };
}

const producerErrors = async (kind: string) =>
  (await metrics.producerErrors.get()).values.find(({ labels }) => labels.kind === kind)?.value ?? 0;

describe("the order of events", () => {
  test("every pending event arrives once, in order per key, and is marked", async () => {
    await insert(keyed(2_600, 40));
    start();
    await expectAllPublished(2_600);
    const records = await readTopic(topic, distinct(2_600));
    expect(records.length).toBe(2_600);
    const byKey = expectInOrder(records);
    expect(byKey.size).toBe(40);
    expect(records[0]?.headers?.ce_source?.toString()).toBe("/shop/order");
  });

  test("a transaction that commits after one with a higher seq is not skipped", async () => {
    start();
    const late = Promise.withResolvers<void>();
    const inserted = Promise.withResolvers<void>();
    const committing = database.transaction(async (transaction) => {
      await insert([{ key: "late" }], transaction);
      inserted.resolve();
      await late.promise;
    });
    await inserted.promise;
    await insert(keyed(30, 30));
    await eventually(async () => expect(await countByStatus()).toEqual({ PUBLISHED: 30 }));
    late.resolve();
    await committing;
    await expectAllPublished(31);
    const sequences = (await readTopic(topic, distinct(31))).map(sequenceOf);
    expect(sequences.indexOf(Math.min(...sequences))).toBeGreaterThan(0);
  });

  test("a transaction that commits between two pages is not overtaken by a later event of its key", async () => {
    // Fewer than a page, so that the late row belongs to the first page of the backlog.
    await insert(keyed(50, 50));
    const commit = Promise.withResolvers<void>();
    const inserted = Promise.withResolvers<void>();
    const committing = database.transaction(async (transaction) => {
      await insert([{ key: "late" }], transaction);
      inserted.resolve();
      await commit.promise;
    });
    await inserted.promise;
    await insert(keyed(900, 300));

    const store = openOutboxStore({ databaseUrl: schema.url, table });
    let pages = 0;
    const afterFirstPage: OutboxStore = {
      ...store,
      snapshot: (work) =>
        store.snapshot((reader) =>
          work({
            async readPending(options) {
              const rows = await reader.readPending(options);
              if (++pages === 1) {
                commit.resolve();
                await committing;
                await insert([{ key: "late" }]);
              }
              return rows;
            },
          }),
        ),
    };
    start({ store: afterFirstPage });
    await expectAllPublished(952);
    expect(pages).toBeGreaterThan(1);
    expect(expectInOrder(await readTopic(topic, distinct(952))).get("late")?.length).toBe(2);
  });
});

describe("late commits", () => {
  test("with 8 writers whose transactions commit in any order, no row is skipped and every key keeps its order", async () => {
    start({ pollIntervalMs: 50 });
    const writersCount = 8;
    const transactions = 25;
    let overtaken = 0;
    let highestCommitted = 0;
    const write = async (writer: number) => {
      for (let number = 0; number < transactions; number++) {
        await database.transaction(async (transaction) => {
          const own = { key: `writer-${writer}` };
          await insert([own, { key: `shared-${(writer + number) % writersCount}-${writer}` }], transaction);
          // From 0 to 100 ms: many short, some long.
          await Bun.sleep(100 * Math.random() ** 3);
          if (Math.random() < 0.3) await insert([own], transaction);
        });
        const [last] = await database.query<{ seq: number }>(
          `SELECT MAX(seq) AS seq FROM ${table} WHERE aggregate_id = ?`,
          [`writer-${writer}`],
        );
        if (Number(last?.seq) < highestCommitted) overtaken++;
        highestCommitted = Math.max(highestCommitted, Number(last?.seq));
      }
    };
    const writers = Array.from({ length: writersCount }, (_, writer) => write(writer));
    // Adds a backlog now and then, so that the relay also reads pages from a snapshot while the writers commit.
    const backlogs = (async () => {
      for (let number = 0; number < 3; number++) {
        await insert(keyed(1_200, 60));
        await Bun.sleep(200);
      }
    })();
    await Promise.all([...writers, backlogs]);
    // The case did occur: transactions committed after others with a higher seq.
    expect(overtaken).toBeGreaterThan(10);
    const [rows] = await database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table}`);
    const total = Number(rows?.n);
    await expectAllPublished(total);
    const records = await readTopic(topic, distinct(total));
    expect(records.length).toBe(total);
    const byKey = expectInOrder(records);
    expect([...byKey.values()].flat().length).toBe(total);
  }, 30_000);
});

describe("outage", () => {
  test("a broker outage counts against no row, and afterwards everything arrives in order", async () => {
    let isBrokerUp = true;
    let refusedSends = 0;
    let refusedConnections = 0;
    start({
      openProducer: async () => {
        const up = isBrokerUp;
        // Nothing listens on port 1, so the error is the client's own.
        const brokers = up ? testServers().kafkaBrokers : [{ host: "127.0.0.1", port: 1 }];
        const producer = await openProducer({ ...testKafka(), brokers, timeoutMs: 2_000 }).catch((error) => {
          refusedConnections++;
          throw error;
        });
        return {
          ...producer,
          async send(to, records) {
            if (isBrokerUp) return await producer.send(to, records);
            // The worst case: the records arrive, and the answer is lost.
            refusedSends++;
            await producer.send(to, records);
            throw new Error("Sending took longer than 2000 ms.");
          },
        };
      },
    });
    await insert(keyed(700, 20));
    await eventually(async () => expect((await countByStatus()).PUBLISHED).toBe(700));
    // A single row, so that an outage that counted against rows would show at once, and not only after bisecting.
    isBrokerUp = false;
    await insert(keyed(1, 1));
    await eventually(() => expect(refusedConnections).toBeGreaterThan(0));
    expect(await countByStatus()).toEqual({ PUBLISHED: 700, PENDING: 1 });
    isBrokerUp = true;
    await eventually(async () => expect((await countByStatus()).PUBLISHED).toBe(701));
    isBrokerUp = false;
    const refusedBefore = refusedConnections;
    await insert(keyed(899, 20));
    await eventually(() => expect(refusedConnections).toBeGreaterThan(refusedBefore + 2));
    expect(refusedSends).toBe(2);
    expect(await producerErrors("unreachable")).toBeGreaterThan(2);
    expect(await countByStatus()).toEqual({ PUBLISHED: 701, PENDING: 899 });
    isBrokerUp = true;
    const backMs = performance.now();
    await expectAllPublished(1_600);
    expect(performance.now() - backMs).toBeLessThan(5_000);
    expectInOrder(await readTopic(topic, distinct(1_600)));
  });

  test("rows whose mark failed are marked later and not sent again by the same relay", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    let failures = 0;
    const failing = <T>(work: () => Promise<T>) => (failures++ < 5 ? Promise.reject(new Error("gone away")) : work());
    start({
      store: {
        ...store,
        markPublished: (ids) => failing(() => store.markPublished(ids)),
      },
    });
    await insert(keyed(700, 5));
    await expectAllPublished(700);
    expect(failures).toBeGreaterThan(5);
    const records = await readTopic(topic, distinct(700));
    expectInOrder(records);
    expect(records.length).toBe(700);
  });

  test("when marking keeps failing, sending stops, so that at most 600 rows are unmarked", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    let marks = 0;
    let sent = 0;
    const { source } = start({
      store: {
        ...store,
        // The mark of the first page succeeds, so that the relay goes on to the backlog.
        markPublished(ids) {
          return marks++ === 0 ? store.markPublished(ids) : Promise.reject(new Error("read only"));
        },
      },
      openProducer: async () => ({
        close: async () => undefined,
        partitionsOf: () => undefined,
        async send(_topic, records) {
          sent += records.length;
        },
      }),
    });
    await insert(keyed(2_000, 2_000));
    // The first mark, at most three in the backlog's pass, and one after it.
    await eventually(() => expect(marks).toBeGreaterThan(4));
    const sentBefore = sent;
    // By then, a relay that goes on sending would have sent more.
    await eventually(() => expect(marks).toBeGreaterThan(8), 20_000);
    expect(sent).toBe(sentBefore);
    // The first page of 10, the 400 rows that may be unmarked, and the page that exceeds them.
    expect(sent).toBeGreaterThan(10);
    expect(sent).toBeLessThanOrEqual(610);
    expect(source.isHealthy()).toBe(false);
    await source.close();
  });

  test("rows that a relay could not mark before it ended are sent again, not lost", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    const away = () => Promise.reject(new Error("gone away"));
    let acknowledged = 0;
    const { source } = start({
      store: { ...store, markPublished: away },
      openProducer: producerWithHook((ids) => {
        acknowledged += ids.length;
      }),
    });
    await insert(keyed(5, 5));
    await eventually(() => expect(acknowledged).toBe(5));
    await source.close();
    expect(await countByStatus()).toEqual({ PENDING: 5 });
    start();
    await expectAllPublished(5);
    const records = await readTopic(topic, (read) => read.length >= 10);
    expectInOrder(records);
    expect(records.length).toBe(10);
  });

  test("a relay that is closed marks the rows that it has sent", async () => {
    let acknowledged = 0;
    const { source } = start({
      openProducer: producerWithHook((ids) => {
        acknowledged += ids.length;
      }),
    });
    await insert(keyed(5, 5));
    await eventually(() => expect(acknowledged).toBe(5));
    await source.close();
    expect(await countByStatus()).toEqual({ PUBLISHED: 5 });
  });

  test("events that come one by one arrive once, in order, and are marked together", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    let marks = 0;
    let sends = 0;
    const { source, ownership } = start({
      store: {
        ...store,
        markPublished(ids) {
          marks++;
          return store.markPublished(ids);
        },
      },
      openProducer: producerWithHook(() => sends++),
    });
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    for (let number = 0; number < 100; number++) {
      await insert([{ key: `key-${number % 7}` }]);
      source.hint();
    }
    await expectAllPublished(100);
    expect(marks).toBeLessThan(sends / 2);
    const records = await readTopic(topic, distinct(100));
    expectInOrder(records);
    expect(records.length).toBe(100);
  });

  test("later events do not wait for a mark under way, and its rows are not sent again", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    const mayMark = Promise.withResolvers<void>();
    let acknowledged = 0;
    const { source } = start({
      store: {
        ...store,
        async markPublished(ids) {
          await mayMark.promise;
          return await store.markPublished(ids);
        },
      },
      openProducer: producerWithHook((ids) => {
        acknowledged += ids.length;
      }),
    });
    await insert([{ key: "a" }]);
    await eventually(() => expect(acknowledged).toBe(1));
    await insert([{ key: "a" }, { key: "b" }]);
    source.hint();
    await eventually(() => expect(acknowledged).toBe(3));
    expect(await countByStatus()).toEqual({ PENDING: 3 });
    mayMark.resolve();
    await expectAllPublished(3);
    const records = await readTopic(topic, distinct(3));
    expectInOrder(records);
    expect(records.length).toBe(3);
  });

  test("a mark changes only rows that are still pending or failed", async () => {
    const ids = await insert([{ key: "a" }, { key: "b", status: "DEAD" }, { key: "c", status: "PUBLISHED" }]);
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    closers.push(store.close);
    expect(await store.markPublished(ids)).toBe(1);
    expect(await countByStatus()).toEqual({ DEAD: 1, PUBLISHED: 2 });
  });

  test("after an outage the relay begins again with a small batch", async () => {
    const sizes: number[] = [];
    let failing = true;
    start({
      openProducer: async () => ({
        close: async () => undefined,
        partitionsOf: () => undefined,
        async send(_topic, records) {
          sizes.push(records.length);
          if (failing && records.length > 10) {
            failing = false;
            throw new Error("away");
          }
        },
      }),
    });
    await insert(keyed(1_000, 1_000));
    await expectAllPublished(1_000);
    // A probe at the start, a full page that fails, a probe after the outage, a full page.
    expect(sizes.slice(0, 4)).toEqual([10, 200, 10, 200]);
  });
});

describe("ownership", () => {
  const lock = () => lockNameOf(schema.name, table);
  const lockHolder = async () => Number((await administer("SELECT IS_USED_LOCK(?) AS id", [lock()]))[0]?.id ?? 0);

  test("of two relays one delivers, and the other takes over when the owner's connection is killed", async () => {
    const both = [start({ pollIntervalMs: 100 }), start({ pollIntervalMs: 100 })];
    const owners = () => both.filter(({ ownership }) => ownership.isFresh());
    await eventually(() => expect(owners().length).toBe(1));
    await insert(keyed(100, 10));
    await expectAllPublished(100);
    expect((await readTopic(topic, distinct(100))).length).toBe(100);

    const [former] = owners();
    await administer(`KILL ${await lockHolder()}`);
    const killedMs = performance.now();
    // The loss is noticed at once, not at the next ping.
    await eventually(() => expect(former?.ownership.isFresh()).toBe(false), 500);
    await eventually(() => expect(owners().length).toBe(1), 5_000);
    await insert(keyed(100, 10));
    await expectAllPublished(200, 5_000);
    expect(performance.now() - killedMs).toBeLessThan(5_000);
    expectInOrder(await readTopic(topic, distinct(200)));
  });

  test("rows that were read before the ownership was lost are not sent", async () => {
    await insert(keyed(5, 5));
    const owned = claimOwnership({ databaseUrl: schema.url, schema: schema.name, table, log: silentLogger });
    let reads = 0;
    let sends = 0;
    const store = withReadHook(openOutboxStore({ databaseUrl: schema.url, table }), () => reads++);
    start({
      pollIntervalMs: 50,
      ownership: { ...owned, isFresh: () => reads === 0 && owned.isFresh() },
      store,
      openProducer: async () => ({
        partitionsOf: () => undefined,
        close: async () => undefined,
        send: async () => void sends++,
      }),
    });
    await eventually(() => expect(reads).toBe(1));
    await Bun.sleep(200);
    expect({ reads, sends }).toEqual({ reads: 1, sends: 0 });
    expect(await countByStatus()).toEqual({ PENDING: 5 });
  });

  test("a relay that is closed releases the source at once", async () => {
    const { ownership, source } = start();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    await source.close();
    expect(ownership.isFresh()).toBe(false);
    expect(await lockHolder()).toBe(0);
  });

  test("an owner that was suspended does not consider itself the owner when it wakes, even before a timer runs", async () => {
    const ownership = claimOwnership({ databaseUrl: schema.url, schema: schema.name, table, log: silentLogger });
    closers.push(ownership.close);
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    Bun.sleepSync(3_100);
    expect(ownership.isFresh()).toBe(false);
    await eventually(() => expect(ownership.isFresh()).toBe(true));
  });

  test("an owner that gets no answers stops sending before another relay can start", async () => {
    // The database accepts statements and does not answer, so only a clock shows the loss.
    const proxy = await tcpProxy(schema.url);
    closers.push(proxy.close);
    const ownership = claimOwnership({ databaseUrl: proxy.url, schema: schema.name, table, log: silentLogger });
    start({ ownership, pollIntervalMs: 100 });
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    await insert(keyed(10, 10));
    await expectAllPublished(10);

    proxy.stall();
    const stalledMs = performance.now();
    await eventually(() => expect(ownership.isFresh()).toBe(false), 4_000);
    const staleAfterMs = performance.now() - stalledMs;
    expect(await lockHolder()).toBeGreaterThan(0);
    expect(staleAfterMs).toBeLessThan(3_500);
    await insert(keyed(10, 10));
    await eventually(async () => expect(await lockHolder()).toBe(0), 8_000);
    // Leaves time for a send of up to 2 s that began at the last moment.
    expect(performance.now() - stalledMs - staleAfterMs).toBeGreaterThan(1_000);
    expect(await countByStatus()).toEqual({ PUBLISHED: 10, PENDING: 10 });
  });
});

describe("wake-up", () => {
  test("a hint wakes the relay at once, and without a hint the poll finds the event", async () => {
    const arrivals = new Map<string, number>();
    const openObserved = producerWithHook((ids) => {
      for (const id of ids) arrivals.set(id, performance.now());
    });
    const { source, ownership } = start({ openProducer: openObserved, pollIntervalMs: 2_000 });
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    await insert([{ key: "warm" }]);
    await expectAllPublished(1);

    const delays: number[] = [];
    for (let round = 0; round < 5; round++) {
      const [id = ""] = await insert([{ key: "hinted" }]);
      const committedMs = performance.now();
      source.hint();
      await eventually(() => expect(arrivals.has(id)).toBe(true));
      delays.push((arrivals.get(id) ?? 0) - committedMs);
    }
    expect(Math.max(...delays)).toBeLessThan(500);

    await Bun.sleep(100);
    const [id = ""] = await insert([{ key: "polled" }]);
    const committedMs = performance.now();
    await eventually(() => expect(arrivals.has(id)).toBe(true));
    expect((arrivals.get(id) ?? 0) - committedMs).toBeGreaterThan(500);
  });

  test("an idle relay sends fewer than 6 queries a second", async () => {
    const { ownership } = start();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    await Bun.sleep(500);
    const queries = async () => (await readCounters("Com_select")).get("Com_select") ?? 0;
    const before = await queries();
    await Bun.sleep(3_000);
    const perSecond = ((await queries()) - before) / 3;
    expect(perSecond).toBeGreaterThan(0);
    expect(perSecond).toBeLessThan(6);
  });

  test("a poll reads no more rows with 200,000 published rows than with none", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    closers.push(store.close);
    const poll = async () => {
      const before = await readCounters("Handler_read%");
      await store.readHeldKeys();
      const rows = await store.readPending({ afterSeq: "0", exceptKeys: [], limit: 500 });
      const after = await readCounters("Handler_read%");
      return { rows: rows.length, reads: [...after].map(([name, value]) => [name, value - (before.get(name) ?? 0)]) };
    };
    await insert(keyed(5, 5));
    await poll();
    const empty = await poll();
    expect(empty.rows).toBe(5);
    await insertPublished(200_000);
    expect((await countByStatus()).PUBLISHED).toBe(200_000);
    expect(await poll()).toEqual(empty);
  });
});

describe("held keys", () => {
  const failuresOf = async (kind: string) =>
    (await metrics.failures.get()).values.find(({ labels }) => labels.kind === kind)?.value ?? 0;

  /**
   * Publishes one event each of `keysCount` other keys, one after the other. Returns how many rows the database read for
   * this, and how many reads, sends and marks the relay made.
   */
  async function costOfOtherKeys(keysCount: number) {
    const made = { reads: 0, sends: 0, marks: 0 };
    const store = withReadHook(openOutboxStore({ databaseUrl: schema.url, table }), () => made.reads++);
    const marked = new Set<string>();
    const { source, ownership } = start({
      pollIntervalMs: 60_000,
      measureIntervalMs: 600_000,
      store: {
        ...store,
        async markPublished(ids) {
          const rows = await store.markPublished(ids);
          made.marks++;
          for (const id of ids) marked.add(id);
          return rows;
        },
      },
      openProducer: producerWithHook(() => void made.sends++),
    });
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    await eventually(() => expect(made.reads).toBe(1));
    const before = await readCounters("Handler_read%");
    for (let index = 0; index < keysCount; index++) {
      const [id = ""] = await insert([{ key: `other-${index}` }]);
      source.hint();
      await eventually(() => expect(marked.has(id)).toBe(true));
      // The read after it, which finds nothing.
      await eventually(() => expect(made.reads).toBeGreaterThan(index + 1));
    }
    const after = await readCounters("Handler_read%");
    await source.close();
    const rowsRead = [...after].reduce((sum, [name, value]) => sum + value - (before.get(name) ?? 0), 0);
    return { ...made, rowsRead };
  }

  test("an event that the schema does not know yet holds its key and no other", async () => {
    const before = await failuresOf("schema-behind");
    await insert([
      { key: "a" },
      { key: "b" },
      { key: "a", type: "shop.future.v1.Thing" },
      { key: "a" },
      { key: "b" },
      { key: "c", payload: '{"orderId":"c","later":1}' },
      { key: "c" },
      { key: "b" },
    ]);
    start({ pollIntervalMs: 50, schemaBehindHoldMs: 200 });
    const records = await readTopic(topic, distinct(4));
    expect(records.map(keyOf).toSorted()).toEqual(["a", "b", "b", "b"]);
    await Bun.sleep(600);
    expect(await countByStatus()).toEqual({ PUBLISHED: 4, PENDING: 4 });
    // Attempted several times, counted once.
    expect((await failuresOf("schema-behind")) - before).toBe(2);
    expect(await database.query(`SELECT id FROM ${table} WHERE retry_count <> 0`)).toEqual([]);
    // In place of a newer schema, the event becomes one that this schema knows.
    await database.execute(`UPDATE ${table} SET type = 'shop.order.v1.OrderCompleted', payload = '{}'`);
    await expectAllPublished(8);
    expectInOrder(await readTopic(topic, distinct(8)));
  });

  test("rows that were sent before a poison row are marked before that row becomes FAILED", async () => {
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    const before: unknown[] = [];
    await insert([{ key: "a" }, { key: "a", payload: "not JSON" }]);
    start({
      store: {
        ...store,
        async markFailed(attempt) {
          before.push(await countByStatus());
          return await store.markFailed(attempt);
        },
      },
      retryBackoff: { baseMs: 60_000, maxMs: 60_000 },
    });
    await eventually(async () => expect(await countByStatus()).toEqual({ PUBLISHED: 1, FAILED: 1 }));
    expect(before).toEqual([{ PUBLISHED: 1, PENDING: 1 }]);
  });

  test("a record that is too large for the broker is found by bisecting the batch, and all others arrive", async () => {
    topic = await newTopic(1, { "max.message.bytes": "100000" });
    const payload = JSON.stringify({ orderId: "x".repeat(150_000) });
    const batch = keyed(200, 50);
    // The oversized event is the third of its key: two are sent before it, one waits behind it.
    batch[107] = { key: "key-7", payload };
    batch[20] = { key: "key-20", payload: "not JSON" };
    await insert(batch);
    const sizes: number[] = [];
    const real = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
    closers.push(real.close);
    start({
      openProducer: async () => ({
        close: async () => undefined,
        partitionsOf: () => undefined,
        async send(to, records) {
          sizes.push(records.length);
          await real.send(to, records);
        },
      }),
      retryBackoff: { baseMs: 60_000, maxMs: 60_000 },
    });
    const published = 200 - 2 - 4;
    await eventually(async () =>
      expect(await countByStatus()).toEqual({ PUBLISHED: published, FAILED: 2, PENDING: 4 }),
    );
    const byKey = expectInOrder(await readTopic(topic, distinct(published)));
    expect(byKey.get("key-7")?.length).toBe(2);
    // Once for each halving, and once for the row alone.
    expect(await producerErrors("too-large")).toBeGreaterThan(3);
    expect(byKey.has("key-20")).toBe(false);
    expect(byKey.size).toBe(49);
    expect(await database.query(`SELECT aggregate_id FROM ${table} WHERE retry_count <> 0 ORDER BY seq`)).toEqual([
      { aggregate_id: "key-20" },
      { aggregate_id: "key-7" },
    ]);
    // A held row is not sent again and again.
    const sends = sizes.length;
    await Bun.sleep(1_500);
    expect(sizes.length).toBe(sends);
  });

  test("5,000 rows of held keys cost other keys nothing, and are sent in order once their event is retried", async () => {
    // If half of the rows are pending, the optimizer would rather read the whole table in the order of `seq`.
    await insertPublished(5_000);
    const otherKeysCount = 20;
    const baseline = await costOfOtherKeys(otherKeysCount);

    await insert([
      { key: "dead", status: "DEAD" },
      { key: "failed", status: "FAILED" },
    ]);
    await insert(Array.from({ length: 5_000 }, (_, index) => ({ key: index % 2 === 0 ? "dead" : "failed" })));
    // A server does this by itself after some time.
    await administer(`ANALYZE TABLE ${schema.name}.${table}`);
    const withHeldRows = await costOfOtherKeys(otherKeysCount);
    // The index is enough to skip the backlog. If its rows were read, each read would cost 5,000 more.
    expect({ ...withHeldRows, rowsRead: 0 }).toEqual({ ...baseline, rowsRead: 0 });
    expect(withHeldRows.rowsRead).toBeLessThan(baseline.rowsRead + 20 * otherKeysCount);
    expect(await countByStatus()).toEqual({
      DEAD: 1,
      FAILED: 1,
      PENDING: 5_000,
      PUBLISHED: 5_000 + 2 * otherKeysCount,
    });

    start();
    await database.execute(`UPDATE ${table} SET status = 'PENDING' WHERE status IN ('DEAD', 'FAILED')`);
    await expectAllPublished(10_002 + 2 * otherKeysCount);
    const byKey = expectInOrder(await readTopic(topic, distinct(5_002 + 2 * otherKeysCount)));
    expect(byKey.get("dead")?.length).toBe(2_501);
  });

  test("rows of more held keys than a statement filters out are skipped", async () => {
    const keys = Array.from({ length: 1_400 }, (_, index) => `dead-${index}`);
    await insert(keys.map((key) => ({ key, status: "DEAD" })));
    await insert(keys.map((key) => ({ key })));
    await insert(keys.map((key) => ({ key })));
    await insert(keyed(20, 20));
    start();
    await eventually(async () => expect(await countByStatus()).toEqual({ DEAD: 1_400, PENDING: 2_800, PUBLISHED: 20 }));
  });

  test("after a start, rows of thousands of held keys delay no other key", async () => {
    const keys = Array.from({ length: 3_000 }, (_, index) => `dead-${index}`);
    await insert(keys.map((key) => ({ key, status: "DEAD" })));
    for (let round = 0; round < 3; round++) await insert(keys.map((key) => ({ key })));
    await insert([{ key: "other" }]);
    const store = openOutboxStore({ databaseUrl: schema.url, table });
    let reads = 0;
    const counting = (reader: PendingReader): PendingReader => ({
      readPending(options) {
        reads++;
        return reader.readPending(options);
      },
    });
    start({ store: { ...store, snapshot: (work) => store.snapshot((reader) => work(counting(reader))) } });
    await eventually(async () => expect(await countByStatus()).toEqual({ DEAD: 3_000, PENDING: 9_000, PUBLISHED: 1 }));
    // 2,000 keys are more than a statement filters out: 6,000 rows have to be read, 200 at a time.
    expect(reads).toBeGreaterThan(25);
    expect(reads).toBeLessThan(100);
  });
});

describe("the process", () => {
  async function startProcess(): Promise<RelayProcess & { readonly hintPort: number }> {
    const hintPort = await freePort();
    const deadLetterTopic = await newTopic(1);
    const { child, health } = await startRelayProcess({
      sources: [
        { name: "order", databaseUrl: schema.url, outboxTable: table, topic, deadLetterTopic },
        // Nothing listens there, which must not affect the other source.
        { name: "away", databaseUrl: "mysql://nobody@127.0.0.1:1/away", outboxTable: "away", topic, deadLetterTopic },
      ],
      env: { RELAY_HINT_PORT: String(hintPort) },
    });
    closers.push(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
    await eventually(async () => {
      const { checks } = await (await fetch(`${health}/readyz`)).json();
      expect(checks).toEqual({ broker: true, "source order": true, "source away": false });
    });
    return { child, health, hintPort };
  }

  test("the relay process publishes after a datagram, shows metrics, and ends within 5 s of SIGTERM", async () => {
    const { child, health, hintPort } = await startProcess();
    const hints = openHintSender("order", [{ host: "127.0.0.1", port: hintPort }]);
    await insert(keyed(30, 5));
    hints.send();
    await expectAllPublished(30);
    hints.close();
    expect((await readTopic(topic, distinct(30))).length).toBe(30);
    const figures = await (await fetch(`${health}/metrics`)).text();
    expect(figures).toContain('relay_published_total{source="order",instance="relay"} 30');
    expect(figures).toContain('relay_owner{source="order",instance="relay"} 1');
    child.kill("SIGTERM");
    const signalledMs = performance.now();
    expect(await child.exited).toBe(0);
    expect(performance.now() - signalledMs).toBeLessThan(5_000);
  });

  test("another relay takes over within 5 s of the kill of the owner's process", async () => {
    const { child } = await startProcess();
    await insert(keyed(10, 5));
    await expectAllPublished(10);
    const { ownership } = start();
    await Bun.sleep(1_200);
    expect(ownership.isFresh()).toBe(false);
    child.kill("SIGKILL");
    const killedMs = performance.now();
    await insert(keyed(10, 5));
    await expectAllPublished(20, 5_000);
    expect(performance.now() - killedMs).toBeLessThan(5_000);
  });

  test("an owner that is suspended before a send and wakes after the takeover sends duplicates, and first occurrences stay in order", async () => {
    // One partition, so that late records are the last ones.
    topic = await newTopic(1);
    // The first send is the probe of ten rows. The process is suspended before the second.
    await insert(keyed(10, 5));
    const heldBackIds = await insert(keyed(40, 5));
    const { kafkaBrokers } = testServers();
    const child = Bun.spawn([process.execPath, "relay/testing-suspending-relay.ts"], {
      cwd: join(import.meta.dir, "../.."),
      env: {
        ...environment(),
        KAFKA_BROKERS: kafkaBrokers.map(({ host, port }) => `${host}:${port}`).join(","),
        DATABASE_URL: schema.url,
        OUTBOX_TABLE: table,
        TOPIC: topic,
        SUSPEND_AT_SEND: "2",
      },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    });
    closers.push(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
    await eventually(async () => {
      const stat = await Bun.file(`/proc/${child.pid}/stat`).text();
      expect(stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3)).toBe("T");
    });
    expect(await countByStatus()).toEqual({ PUBLISHED: 10, PENDING: 40 });

    const { ownership } = start();
    const laterIds = await insert(keyed(30, 5));
    await expectAllPublished(80, 10_000);
    expect(ownership.isFresh()).toBe(true);
    expect((await readTopic(topic, distinct(80))).length).toBe(80);

    child.kill("SIGCONT");
    const records = await readTopic(topic, (seen) => seen.length >= 120);
    const late = records.slice(80).map(idOf);
    expect(late.toSorted()).toEqual(heldBackIds.toSorted());
    // They arrive after everything else, but as duplicates, which the inbox drops.
    const byKey = firstOccurrences(records);
    expect(byKey.size).toBe(5);
    expect([...byKey.values()].flat().map(idOf)).toEqual(expect.arrayContaining([...laterIds]));
    // The old owner has lost its ownership, and its marks change nothing.
    await insert(keyed(20, 5));
    await expectAllPublished(100);
    expect((await readTopic(topic, distinct(100))).length).toBe(140);
    expect(ownership.isFresh()).toBe(true);
  }, 40_000);

  test("an owner that is suspended while idle and wakes after the takeover sends nothing", async () => {
    const { child } = await startProcess();
    await insert(keyed(10, 5));
    await expectAllPublished(10);
    const { ownership } = start();
    child.kill("SIGSTOP");
    await insert(keyed(10, 5));
    await expectAllPublished(20, 10_000);
    expect(ownership.isFresh()).toBe(true);
    child.kill("SIGCONT");
    await insert(keyed(200, 5));
    await expectAllPublished(220);
    await Bun.sleep(1_500);
    const records = await readTopic(topic, distinct(220));
    expectInOrder(records);
    expect(records.length).toBe(220);
  });
});

// Helpers

const portOf = (server: Server) => {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server listens on no port.");
  return address.port;
};

const listening = (server: Server) =>
  new Promise<Server>((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));

/** A proxy between the relay and its database. Once stalled, it keeps connections open and forwards nothing. */
async function tcpProxy(databaseUrl: string) {
  const target = new URL(databaseUrl);
  const { hostname, port } = target;
  const sockets: Socket[] = [];
  const server = await listening(
    createServer((near) => {
      const far = connect(Number(port), hostname);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on("error", () => undefined);
        from.on("data", (chunk) => isStalled || to.write(chunk));
        from.on("close", () => isStalled || to.destroy());
        sockets.push(from);
      }
    }),
  );
  let isStalled = false;
  target.hostname = "127.0.0.1";
  target.port = String(portOf(server));
  return {
    url: target.href,
    stall() {
      isStalled = true;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
