/** Relay processes whose broker is killed or hangs and whose owner is killed, on a broker of their own. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { discardEvent } from "../../relay/operations/undelivered.ts";
import {
  createTestTopic,
  distinct,
  firstOccurrences,
  idOf,
  type RelayProcess,
  readTopic,
  sequenceOf,
  startRelayProcess,
} from "../../relay/testing.ts";
import { type Database, insertRows } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import type { SqlValue } from "../kit/statements.ts";
import { administer, createServiceSchema, eventually, type TestSchema } from "../kit/testing.ts";
import { startTestBroker, type TestBroker } from "./testing-broker.ts";

const table = "order_outbox_event";
const type = "shop.order.v1.OrderCompleted";

let broker: TestBroker;
let kafka: KafkaOptions;
let schema: TestSchema;
let database: Database;
let topic: string;
let deadLetterTopic: string;
const relays = new Set<RelayProcess>();
beforeAll(async () => {
  [broker, schema] = await Promise.all([startTestBroker(), createServiceSchema("order")]);
  kafka = { brokers: [broker.address], clientId: "test", log: silentLogger };
  database = schema.open(8);
}, 60_000);
afterAll(async () => {
  await Promise.all([broker.stop(), schema.drop()]);
}, 30_000);
beforeEach(async () => {
  await administer(`TRUNCATE TABLE ${schema.name}.${table}`);
  [topic, deadLetterTopic] = [await createTestTopic(3, {}, kafka), await createTestTopic(1, {}, kafka)];
});
afterEach(async () => {
  await Promise.all([...relays].map(kill));
});

// The relays

async function startRelay(env: Readonly<Record<string, string>> = {}): Promise<RelayProcess> {
  const relay = await startRelayProcess({
    sources: [{ name: "order", databaseUrl: schema.url, outboxTable: table, topic, deadLetterTopic }],
    kafka,
    env,
  });
  relays.add(relay);
  return relay;
}

async function kill(relay: RelayProcess): Promise<void> {
  relays.delete(relay);
  relay.child.kill("SIGKILL");
  await relay.child.exited;
}

async function owns({ health }: RelayProcess): Promise<boolean> {
  const figures = await (await fetch(`${health}/metrics`)).text();
  return /^relay_owner\{source="order".*\} 1$/m.test(figures);
}

/** The replica that owns the source. Waits until there is one. */
const owner = () =>
  eventually(async () => {
    for (const relay of relays) if (await owns(relay)) return relay;
    throw new Error("No replica owns the source.");
  }, 15_000);

// The outbox

interface Given {
  readonly key: string;
  readonly payload?: string;
  readonly headers?: string;
}

async function insert(events: readonly Given[]): Promise<readonly string[]> {
  const rows = events.map(({ key, payload, headers }): SqlValue[] => [
    Bun.randomUUIDv7(),
    key,
    type,
    payload ?? JSON.stringify({ orderId: key }),
    headers ?? "{}",
  ]);
  await insertRows(database, table, ["id", "aggregate_id", "type", "payload", "headers"], rows);
  return rows.map(([id]) => String(id));
}

async function countByStatus(): Promise<Readonly<Record<string, number>>> {
  const rows = await database.query<{ status: string; n: number }>(
    `SELECT status, COUNT(*) AS n FROM ${table} GROUP BY status`,
  );
  return Object.fromEntries(rows.map(({ status, n }) => [status, Number(n)]));
}

const published = async () => (await countByStatus()).PUBLISHED ?? 0;
const retried = () => database.query(`SELECT id FROM ${table} WHERE retry_count > 0 OR last_error IS NOT NULL`);

const brokerAnswers = () =>
  eventually(async () => {
    const admin = await openAdmin(kafka);
    await admin.close();
  }, 30_000);

describe("50,000 events over 500 keys, 50 of them poison", () => {
  const keyCount = 500;
  const eventsPerKey = 100;
  const poisonCount = 50;
  const writerCount = 4;
  /** Each fails in another way. */
  const poisons: readonly Omit<Given, "key">[] = [
    { payload: "not JSON" },
    { payload: '{"orderId":7}' },
    { headers: "traceparent=1" },
    { payload: JSON.stringify({ orderId: "x".repeat(1_200_000) }) },
  ];

  /** What is killed while events are written and relayed, in this order. */
  const faults = ["owner", "broker", "owner", "owner", "broker", "owner", "owner"] as const;

  test("after two kills of the broker and five of the owner, only poison is dead and the rest is published in order per key", async () => {
    // One poison event at a random position among the events of each of the first keys.
    const poisonAt = new Map(
      Array.from({ length: poisonCount }, (_, index) => [index, Math.floor(Math.random() * eventsPerKey)]),
    );
    const poisonIds: string[] = [];
    const idsByKey = new Map<string, string[]>();
    let written = 0;
    let allowed = 0;
    /** Each writer has its own keys and writes their events in order, as a lock on the aggregate's row would enforce. */
    const write = async (writer: number) => {
      const keys = Array.from({ length: keyCount / writerCount }, (_, index) => writer + index * writerCount);
      for (let number = 0; number < eventsPerKey; number++) {
        await eventually(() => expect(written).toBeLessThan(allowed), 60_000);
        const events = keys.map((key) => ({
          key: `key-${key}`,
          ...(poisonAt.get(key) === number ? poisons[key % poisons.length] : {}),
        }));
        const ids = await insert(events);
        keys.forEach((key, index) => {
          const id = ids[index] ?? "";
          if (poisonAt.get(key) === number) poisonIds.push(id);
          idsByKey.set(`key-${key}`, [...(idsByKey.get(`key-${key}`) ?? []), id]);
        });
        written += keys.length;
      }
    };
    const env = { RELAY_RETRY_BASE_MS: "20", RELAY_RETRY_MAX_MS: "400" };
    await Promise.all([startRelay({ ...env, INSTANCE: "relay-1" }), startRelay({ ...env, INSTANCE: "relay-2" })]);
    await owner();
    const total = keyCount * eventsPerKey;
    const writing = Promise.all(Array.from({ length: writerCount }, (_, writer) => write(writer)));
    for (const [index, fault] of faults.entries()) {
      const before = await published();
      allowed = Math.round((total * (index + 0.5)) / faults.length);
      await eventually(async () => expect(await published()).toBeGreaterThan(before), 20_000);
      if (fault === "owner") {
        await kill(await owner());
        await startRelay({ ...env, INSTANCE: `relay-${index + 3}` });
      } else {
        process.kill(broker.pid(), "SIGKILL");
      }
      allowed = Math.round((total * (index + 1)) / faults.length);
      // Something was in flight.
      await eventually(async () => expect((await countByStatus()).PENDING).toBeGreaterThan(0));
      if (fault === "broker") await brokerAnswers();
    }
    await writing;
    expect(poisonIds.length).toBe(poisonCount);

    // All 50 are dead despite the kills. Only the later events of their keys wait.
    const idsWith = async (status: string) =>
      (await database.query<{ id: string }>(`SELECT id FROM ${table} WHERE status = ?`, [status])).map(({ id }) => id);
    const behind = [...idsByKey].flatMap(([, ids]) => {
      const first = ids.findIndex((id) => poisonIds.includes(id));
      return first < 0 ? [] : ids.slice(first + 1);
    });
    await eventually(async () => {
      expect(await countByStatus()).toEqual({
        DEAD: poisonCount,
        ...(behind.length > 0 ? { PENDING: behind.length } : {}),
        PUBLISHED: total - poisonCount - behind.length,
      });
    }, 60_000);
    expect((await idsWith("DEAD")).sort()).toEqual(poisonIds.toSorted());
    expect((await idsWith("PENDING")).sort()).toEqual(behind.toSorted());
    expect((await database.query(`SELECT DISTINCT retry_count AS n FROM ${table} WHERE status = 'DEAD'`))[0]?.n).toBe(
      10,
    );
    expect(await database.query(`SELECT id FROM ${table} WHERE status <> 'DEAD' AND retry_count > 0`)).toEqual([]);
    const letters = await readTopic(deadLetterTopic, distinct(poisonCount), 20_000, kafka);
    expect([...new Set(letters.map(idOf))].sort()).toEqual(poisonIds.toSorted());

    // After the operator discards them, everything else is published.
    const source = {
      ...{ name: "order", databaseUrl: schema.url, schema: schema.name, outboxTable: table, topic, deadLetterTopic },
      ...{ archiveTable: `${table}_archive`, encoding: "protobuf" as const, ceSource: "/shop/order", database },
    };
    const command = { operator: "ann", command: "discard", arguments: {}, reason: "poison" };
    for (const id of poisonIds) await discardEvent(source, id, command);
    await eventually(async () => expect(await countByStatus()).toEqual({ PUBLISHED: total - poisonCount }), 30_000);
    const byKey = firstOccurrences(await readTopic(topic, distinct(total - poisonCount), 30_000, kafka));
    expect(byKey.size).toBe(keyCount);
    for (const [key, ids] of idsByKey) {
      expect(byKey.get(key)?.map(idOf)).toEqual(ids.filter((id) => !poisonIds.includes(id)));
    }
  }, 240_000);
});

test("while the broker hangs for 15 s during a drain, no attempt is counted; within 5 s after that the relay is fast again", async () => {
  const total = 40_000;
  const outageMs = 15_000;
  for (let first = 0; first < total; first += 2_000) {
    await insert(Array.from({ length: 2_000 }, (_, index) => ({ key: `key-${(first + index) % 1_000}` })));
  }
  const relay = await startRelay();
  await eventually(async () => expect(await published()).toBeGreaterThan(5_000), 20_000);
  const pid = broker.pid();
  process.kill(pid, "SIGSTOP");
  try {
    const frozenMs = performance.now();
    await eventually(async () => {
      expect((await fetch(`${relay.health}/readyz`)).status).toBe(503);
      expect((await fetch(`${relay.health}/livez`)).status).toBe(200);
    });
    const atOutage = await published();
    expect(atOutage).toBeLessThan(total - 10_000);
    await Bun.sleep(outageMs - (performance.now() - frozenMs));
    expect(await countByStatus()).toEqual({ PUBLISHED: atOutage, PENDING: total - atOutage });
    expect(await retried()).toEqual([]);
    process.kill(pid, "SIGCONT");
    const backMs = performance.now();
    // A relay at full speed sends as many in a fraction of a second; with probes of ten rows it would take longer.
    await eventually(async () => expect(await published()).toBeGreaterThan(atOutage + 5_000), 10_000);
    expect(performance.now() - backMs).toBeLessThan(5_000);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await eventually(async () => expect(await countByStatus()).toEqual({ PUBLISHED: total }), 30_000);
  expect(await retried()).toEqual([]);
  const records = await readTopic(topic, distinct(total), 30_000, kafka);
  const sequences = [...firstOccurrences(records).values()].flat().map(sequenceOf);
  expect(sequences.length).toBe(total);
  const ready = async () => (await fetch(`${relay.health}/readyz`)).status;
  await eventually(async () => expect(await ready()).toBe(200));

  // With nothing to send, the relay checks the broker for /readyz and still reports the truth.
  process.kill(pid, "SIGSTOP");
  try {
    expect(await ready()).toBe(503);
    expect((await fetch(`${relay.health}/livez`)).status).toBe(200);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await eventually(async () => expect(await ready()).toBe(200));
}, 120_000);
