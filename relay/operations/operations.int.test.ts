/** The operators' commands on a real database and a real broker, some with a relay running. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { type Database, databaseNow, insertRows, openDatabase } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import type { SqlValue } from "../../services/kit/statements.ts";
import { administer, createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { openProducer } from "../kafka/producer.ts";
import { createRelayMetrics } from "../outbox/metrics.ts";
import { claimOwnership, type Ownership } from "../outbox/ownership.ts";
import { lockNameOf } from "../outbox/source-lock.ts";
import { type RelaySourceOptions, startRelaySource } from "../outbox/start-relay.ts";
import { openOutboxStore } from "../outbox/store.ts";
import { createTestTopic, readTopic, testKafka } from "../testing.ts";
import { ensureAuditTable, type OperatorCommand } from "./audit-log.ts";
import { readBacklog } from "./backlog.ts";
import { readOwner } from "./owner.ts";
import { planRepublish, type RepublishRange, republish } from "./republish.ts";
import type { OperatedSource } from "./source.ts";
import { takeSource } from "./takeover.ts";
import { countUndelivered, discardEvent, findEvent, listUndelivered, retryAll, retryEvent } from "./undelivered.ts";

const outboxTable = "order_outbox_event";
const archiveTable = "order_outbox_event_archive";
const completed = "shop.order.v1.OrderCompleted";
const dayMs = 86_400_000;
const retentionMs = 15 * dayMs;

let schema: TestSchema;
let database: Database;
let topic: string;
let source: OperatedSource;
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open(8);
});
afterAll(() => schema.drop());
beforeEach(async () => {
  for (const table of [outboxTable, archiveTable]) await database.execute(`DELETE FROM ${table}`);
  await database.execute("DROP TABLE IF EXISTS ops_audit");
  // One partition, so that records are read in the order in which they were sent.
  topic = await createTestTopic(1);
  source = sourceOn(database);
});
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics([topic]);
  await admin.close();
});

function sourceOn(on: Database, databaseUrl = schema.url): OperatedSource {
  return {
    name: "order",
    databaseUrl,
    schema: schema.name,
    outboxTable,
    archiveTable,
    topic,
    deadLetterTopic: `${topic}.dlq`,
    encoding: "protobuf",
    ceSource: "/shop/order",
    database: on,
  };
}

/** A source reached through a new account that only has these rights. */
async function sourceWith(grants: (user: string) => readonly string[]): Promise<OperatedSource> {
  const user = `ops_${crypto.randomUUID().slice(0, 8)}`;
  await administer(`CREATE USER '${user}'@'%' IDENTIFIED BY '${user}'`);
  for (const grant of grants(user)) await administer(grant);
  const url = new URL(schema.url);
  url.username = user;
  url.password = user;
  const restricted = openDatabase({ url: url.href, connectionsMax: 2 });
  closers.push(async () => {
    await restricted.close();
    await administer(`DROP USER '${user}'@'%'`);
  });
  return sourceOn(restricted, url.href);
}

interface GivenEvent {
  readonly key: string;
  readonly status?: string;
  readonly occurred?: Date;
  readonly published?: Date | null;
  readonly retries?: number;
  readonly error?: string;
  readonly payload?: string;
  /** For the archive only, which does not number its rows itself. */
  readonly seq?: number;
}

async function insert(events: readonly GivenEvent[], table = outboxTable): Promise<readonly string[]> {
  const now = await databaseNow(database);
  const rows = events.map((event): SqlValue[] => [
    Bun.randomUUIDv7(),
    event.key,
    completed,
    event.payload ?? JSON.stringify({ orderId: event.key }),
    "{}",
    event.status ?? "PENDING",
    event.occurred ?? now,
    event.published ?? (event.status === "PUBLISHED" ? now : null),
    event.retries ?? 0,
    event.error ?? null,
    ...(event.seq === undefined ? [] : [event.seq]),
  ]);
  const columns = ["id", "aggregate_id", "type", "payload", "headers", "status", "occurred_at", "published_at"];
  const more = ["retry_count", "last_error", ...(events[0]?.seq === undefined ? [] : ["seq"])];
  await insertRows(database, table, [...columns, ...more], rows);
  return rows.map(([id]) => String(id));
}

const dead = (key: string): GivenEvent => ({ key, status: "DEAD", retries: 10, error: "MESSAGE_TOO_LARGE" });
const only = (ids: readonly string[]): string => {
  const [id] = ids;
  if (id === undefined || ids.length !== 1) throw new Error(`expected one id, not ${ids.length}`);
  return id;
};

function commandOf(command: string, given: Readonly<Record<string, unknown>> = {}): OperatorCommand {
  return { operator: "ann", command, arguments: given };
}

async function audits(): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const rows = await database.query<{ operator: string; command: string; arguments: string; result: string }>(
    "SELECT operator, command, arguments, result FROM ops_audit ORDER BY id",
  );
  return rows.map((row) => ({ ...row, arguments: JSON.parse(row.arguments), result: JSON.parse(row.result) }));
}

async function rowOf(id: string, table = outboxTable) {
  const [row] = await database.query(`SELECT * FROM ${table} WHERE id = ?`, [id]);
  return row;
}

const statusOf = async (id: string) => (await rowOf(id))?.status;

const metrics = createRelayMetrics(new Metrics());

function startRelay(change: Partial<RelaySourceOptions> = {}): Ownership {
  const ownership = claimOwnership({
    databaseUrl: schema.url,
    schema: schema.name,
    table: outboxTable,
    log: silentLogger,
  });
  const running = startRelaySource({
    ...source,
    registry: eventRegistry,
    store: openOutboxStore({ databaseUrl: schema.url, table: outboxTable }),
    ownership,
    openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
    log: silentLogger,
    metrics,
    ...change,
  });
  closers.push(() => running.close());
  return ownership;
}

const idOf = (record: TopicRecord) => String(record.headers?.ce_id);
const atLeast = (count: number) => (records: readonly TopicRecord[]) => records.length >= count;

describe("backlog", () => {
  test("the backlog counts pending and held events separately and measures ages by the database's clock", async () => {
    const now = await databaseNow(database);
    const ago = (seconds: number) => new Date(now.getTime() - seconds * 1_000);
    await insert([
      dead("held-1"),
      { key: "held-1", occurred: ago(500) },
      { key: "held-1" },
      { key: "held-2", status: "FAILED", retries: 3 },
      { key: "held-2", status: "FAILED" },
      { key: "held-2" },
      { key: "free-1", occurred: ago(90) },
      { key: "free-2" },
    ]);
    await insert(Array.from({ length: 30 }, () => ({ key: "done", status: "PUBLISHED" })));
    await insert([{ key: "done", status: "PUBLISHED", published: ago(70) }]);
    const { oldestPendingAgeMs, ...backlog } = await readBacklog(source);
    expect(backlog).toEqual({
      pending: 2,
      held: 3,
      failed: 2,
      dead: 1,
      heldKeys: 2,
      owner: null,
      publishedPerSecond: 0.5,
    });
    expect(oldestPendingAgeMs).toBeWithin(90_000, 100_000);
    expect(await countUndelivered(source)).toBe(3);
  });

  test("the backlog of an empty source is all zeros", async () => {
    expect(await readBacklog(source)).toEqual({
      pending: 0,
      held: 0,
      oldestPendingAgeMs: null,
      failed: 0,
      dead: 0,
      heldKeys: 0,
      owner: null,
      publishedPerSecond: 0,
    });
  });

  test("the owner of a source is shown as far as the account may see it", async () => {
    const ownership = startRelay();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    const owner = await readOwner(source);
    expect(owner).toEqual({
      connectionId: expect.any(Number),
      user: "root",
      // Some servers resolve the address to a name.
      host: expect.stringMatching(/^(127\.0\.0\.1|localhost):/),
    });
    const blind = await sourceWith((user) => [`GRANT SELECT ON ${schema.name}.* TO '${user}'@'%'`]);
    expect(await readOwner(blind)).toEqual({ connectionId: owner?.connectionId ?? 0, user: null, host: null });
    expect((await readBacklog(blind)).owner?.connectionId).toBe(owner?.connectionId ?? 0);
  });
});

describe("undelivered events", () => {
  test("dead events are listed, with failed ones on request, and one event is shown in full", async () => {
    const ids = await insert([
      { key: "a", status: "FAILED", retries: 2, error: "no" },
      { ...dead("b"), payload: "not JSON" },
      { key: "b" },
      { key: "b" },
      { key: "c" },
    ]);
    const listed = await listUndelivered(source, { withFailed: false });
    expect(listed).toEqual([
      {
        source: "order",
        id: ids[1] ?? "",
        key: "b",
        type: completed,
        status: "DEAD",
        retryCount: 10,
        lastError: "MESSAGE_TOO_LARGE",
        ageMs: expect.any(Number),
      },
    ]);
    expect((await listUndelivered(source, { withFailed: true })).map(({ id }) => id)).toEqual(ids.slice(0, 2));
    expect(await findEvent(source, ids[1] ?? "")).toMatchObject({
      ...listed[0],
      ageMs: expect.any(Number),
      table: "outbox",
      payload: "not JSON",
      headers: "{}",
      laterPending: 2,
      publishedAt: null,
    });
    expect(await findEvent(source, "unknown")).toBeUndefined();
  });
});

describe("retry", () => {
  test("retrying a dead event makes it pending with its attempts reset, and is recorded in the audit log", async () => {
    const id = only(await insert([dead("a")]));
    await database.execute(`UPDATE ${outboxTable} SET next_attempt_at = CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR`);
    await retryEvent(source, id, commandOf("retry", { id }));
    expect(await rowOf(id)).toMatchObject({ status: "PENDING", retry_count: 0, next_attempt_at: null });
    expect(await audits()).toMatchObject([
      {
        operator: "ann",
        command: "retry",
        arguments: { id },
        result: { retried: 1, event: { id, key: "a", status: "DEAD", retryCount: 10, lastError: "MESSAGE_TOO_LARGE" } },
      },
    ]);
  });

  test("retrying an event that is neither failed nor dead is refused and leaves no audit row", async () => {
    const [pending = "", published = ""] = await insert([
      { key: "a", retries: 4 },
      { key: "a", status: "PUBLISHED" },
    ]);
    for (const id of [pending, published]) {
      await expect(retryEvent(source, id, commandOf("retry"))).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    }
    await expect(retryEvent(source, "unknown", commandOf("retry"))).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await rowOf(pending)).toMatchObject({ status: "PENDING", retry_count: 4 });
    expect(await statusOf(published)).toBe("PUBLISHED");
    expect(await audits()).toEqual([]);
  });

  test("retrying all takes the failed and the dead events and nothing else", async () => {
    await insert([dead("a"), dead("b"), { key: "b", status: "FAILED" }, { key: "c", status: "PUBLISHED" }]);
    expect(await retryAll(source, commandOf("retry", { all: true }))).toBe(3);
    expect(await readBacklog(source)).toMatchObject({ pending: 3, held: 0, failed: 0, dead: 0, heldKeys: 0 });
    expect(await audits()).toMatchObject([{ arguments: { all: true }, result: { retried: 3 } }]);
  });

  test("the relay delivers a retried event before the later events of its key", async () => {
    startRelay();
    const ids = await insert([dead("a"), { key: "a" }, { key: "a" }, { key: "b" }]);
    const [first = "", , third = "", neighbour = ""] = ids;
    await eventually(async () => expect(await statusOf(neighbour)).toBe("PUBLISHED"));
    expect(await statusOf(third)).toBe("PENDING");
    await retryEvent(source, first, commandOf("retry"));
    await eventually(async () => expect(await statusOf(third)).toBe("PUBLISHED"));
    expect((await readTopic(topic, atLeast(4))).map(idOf)).toEqual([neighbour, ...ids.slice(0, 3)]);
  });
});

describe("discard", () => {
  const reason = { reason: "the order was cancelled by hand" };

  test("a discarded event moves to the archive with operator and reason, and later events of its key are delivered", async () => {
    startRelay();
    const [first = "", second = ""] = await insert([dead("a"), { key: "a" }]);
    const before = await rowOf(first);
    await discardEvent(source, first, { ...commandOf("discard", { id: first }), ...reason });
    expect(await rowOf(first)).toBeUndefined();
    expect(await rowOf(first, archiveTable)).toEqual({
      id: first,
      aggregate_id: "a",
      type: completed,
      payload: before?.payload,
      headers: before?.headers,
      occurred_at: before?.occurred_at,
      status: "DISCARDED",
      retry_count: 10,
      last_error: "MESSAGE_TOO_LARGE",
      published_at: null,
      seq: before?.seq,
      archived_at: expect.any(Date),
      discarded_by: "ann",
      discard_reason: reason.reason,
    });
    await eventually(async () => expect(await statusOf(second)).toBe("PUBLISHED"));
    expect((await readTopic(topic, atLeast(1))).map(idOf)).toEqual([second]);
    expect(await findEvent(source, first)).toMatchObject({
      table: "archive",
      status: "DISCARDED",
      discardedBy: "ann",
      discardReason: reason.reason,
    });
    expect(await audits()).toMatchObject([
      { operator: "ann", command: "discard", result: { discarded: 1, event: { id: first, status: "DEAD" } } },
    ]);
  });

  test("only failed and dead events can be discarded, and only with a reason", async () => {
    const [failed = "", pending = "", published = ""] = await insert([
      { key: "a", status: "FAILED" },
      { key: "b" },
      { key: "c", status: "PUBLISHED" },
    ]);
    const discard = (id: string, why: string) => discardEvent(source, id, { ...commandOf("discard"), reason: why });
    await expect(discard(pending, "x")).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await expect(discard(published, "x")).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await expect(discard("unknown", "x")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(discard(failed, " ")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(discard(failed, "x".repeat(501))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await database.query(`SELECT id FROM ${archiveTable}`)).toEqual([]);
    expect(await statusOf(failed)).toBe("FAILED");
    expect(await audits()).toEqual([]);
    await discard(failed, "x".repeat(500));
    expect(await statusOf(failed)).toBeUndefined();
  });

  test("an event cannot be discarded while the relay sends it", async () => {
    const id = only(await insert([{ key: "a", status: "FAILED", retries: 2 }]));
    await database.execute(`UPDATE ${outboxTable} SET next_attempt_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, [id]);
    const sending = Promise.withResolvers<void>();
    const decided = Promise.withResolvers<void>();
    startRelay({
      async openProducer() {
        const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
        return {
          ...producer,
          async send(to, records) {
            sending.resolve();
            await decided.promise;
            await producer.send(to, records);
          },
        };
      },
    });
    await sending.promise;
    const discarding = discardEvent(source, id, { ...commandOf("discard"), ...reason });
    await expect(discarding.finally(decided.resolve)).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await eventually(async () => expect(await rowOf(id)).toMatchObject({ status: "PUBLISHED", retry_count: 2 }));
    expect(await audits()).toEqual([]);
  });

  test("a discard that fails half-way changes nothing", async () => {
    const id = only(await insert([dead("a")]));
    // The archive already has a row with this id, so the insert fails.
    await database.execute(
      `INSERT INTO ${archiveTable} (id, aggregate_id, type, payload, status, seq)
       SELECT id, aggregate_id, type, payload, 'PUBLISHED', seq FROM ${outboxTable}`,
    );
    await expect(discardEvent(source, id, { ...commandOf("discard"), ...reason })).rejects.toThrow("Duplicate");
    expect(await statusOf(id)).toBe("DEAD");
    expect(await audits()).toEqual([]);
  });
});

describe("audit log", () => {
  test("an account that may not create the audit table gets the statements for an administrator to run, and works after that", async () => {
    const id = only(await insert([dead("a")]));
    const limited = await sourceWith((user) => [
      `GRANT SELECT, UPDATE ON ${schema.name}.${outboxTable} TO '${user}'@'%'`,
    ]);
    const retry = () => retryEvent(limited, id, commandOf("retry"));
    await expect(retry()).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("CREATE TABLE IF NOT EXISTS ops_audit"),
    });
    expect(await statusOf(id)).toBe("DEAD");
    await ensureAuditTable(database);
    const [user] = await limited.database.query("SELECT CURRENT_USER() AS name");
    const name = String(user?.name).split("@")[0];
    await administer(`GRANT SELECT, INSERT ON ${schema.name}.ops_audit TO '${name}'@'%'`);
    await retry();
    expect(await statusOf(id)).toBe("PENDING");
    expect((await audits()).length).toBe(1);
  });

  test("a change that cannot be recorded in the audit log is not made", async () => {
    const id = only(await insert([dead("a")]));
    await expect(retryEvent(source, id, { ...commandOf("retry"), operator: "x".repeat(129) })).rejects.toThrow(
      "Data too long",
    );
    expect(await statusOf(id)).toBe("DEAD");
  });
});

describe("republish", () => {
  const planned = async (change: Partial<RepublishRange> = {}, days = 15) => {
    const now = await databaseNow(database);
    const range = { from: new Date(now.getTime() - dayMs), to: new Date(now.getTime() + dayMs), ...change };
    return await planRepublish(source, range, days * dayMs);
  };
  const run = async (change: Partial<Parameters<typeof republish>[1]> = {}) =>
    await republish(source, {
      plan: change.plan ?? (await planned()),
      registry: eventRegistry,
      command: commandOf("republish", { source: "order" }),
      openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
      onProgress: () => undefined,
      onWait: () => undefined,
      ...change,
    });

  /** Published events in archive and outbox, with discarded, dead and pending ones between them that must not be sent. */
  async function insertHistory(archived: number, kept: number): Promise<readonly string[]> {
    // The archived events come first in `seq` order: the outbox's own events are moved far up, to make room below them. The
    // archived events take every other seq, and the discarded event takes one of those between.
    const keyed = (index: number) => ({ key: `key-${index % 30}`, status: "PUBLISHED" });
    const [{ next } = { next: 0 }] = await database.query<{ next: number }>(
      `SELECT COALESCE(MAX(seq), 0) + 1 AS next FROM (SELECT seq FROM ${outboxTable} UNION SELECT 1) AS taken`,
    );
    const newer = await insert(Array.from({ length: kept }, (_, index) => keyed(index)));
    await database.execute(`UPDATE ${outboxTable} SET seq = seq + 1000000 ORDER BY seq DESC`);
    const older = await insert(
      Array.from({ length: archived }, (_, index) => ({ ...keyed(index), seq: Number(next) + 2 * index })),
      archiveTable,
    );
    const now = await databaseNow(database);
    await insert([{ key: "key-1", status: "DISCARDED", published: now, seq: Number(next) + 1 }], archiveTable);
    await insert([dead("key-dead"), { key: "key-dead" }]);
    return [...older, ...newer];
  }

  test("republishing sends outbox and archive in seq order with the same ids while the relay pauses, and is recorded in the audit log", async () => {
    const ownership = startRelay();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    const ids = await insertHistory(600, 700);
    const plan = await planned();
    expect(plan.count).toMatchObject({ events: 1_300, fromArchive: 600, fromOutbox: 700 });
    const rowsBut = async (id: string) => [
      await database.query(`SELECT * FROM ${outboxTable} WHERE id <> ? ORDER BY seq`, [id]),
      await database.query(`SELECT * FROM ${archiveTable} ORDER BY seq`),
    ];
    const rowsBefore = await rowsBut("");
    // An event that is committed while the relay pauses.
    let inserted: Promise<string> | undefined;
    const messages: string[] = [];
    const seen: Promise<unknown>[] = [];
    const result = await run({
      plan,
      onWait(what) {
        messages.push(what);
        if (what.startsWith("The relay has stopped")) inserted = insert([{ key: "key-3" }]).then(only);
      },
      onProgress() {
        const isFresh = ownership.isFresh();
        seen.push((async () => [isFresh, await statusOf((await inserted) ?? "")])());
      },
    });
    const late = (await inserted) ?? "";
    expect(result).toMatchObject({ sent: 1_300, complete: true, events: 1_300 });
    expect(messages.join(" ")).toMatch(/Taking the source order from connection \d+ of root@.*The relay has stopped/);
    expect(seen.length).toBeGreaterThan(2);
    expect(await Promise.all(seen.slice(0, -1))).toEqual(seen.slice(0, -1).map(() => [false, "PENDING"]));
    // The relay continues by itself.
    await eventually(async () => expect(await statusOf(late)).toBe("PUBLISHED"));
    const records = await readTopic(topic, atLeast(1_301));
    expect(records.map(idOf)).toEqual([...ids, late]);
    expect(new TextDecoder().decode(records[0]?.key ?? undefined)).toBe("key-0");
    expect(await audits()).toMatchObject([
      {
        command: "republish",
        arguments: { source: "order" },
        result: { events: 1_300, sent: 1_300, outcome: "COMPLETE", lastSentSeq: result.lastSeq },
      },
    ]);
    expect(await rowsBut(late)).toEqual(rowsBefore);
  }, 60_000);

  test("republishing a key or a range sends no other events", async () => {
    const now = await databaseNow(database);
    const ago = (minutes: number) => new Date(now.getTime() - minutes * 60_000);
    const ids = await insert([
      { key: "a", status: "PUBLISHED", published: ago(30) },
      { key: "a", status: "PUBLISHED", published: ago(20) },
      { key: "b", status: "PUBLISHED", published: ago(20) },
      { key: "a", status: "PUBLISHED", published: ago(10) },
    ]);
    expect((await planned({ from: ago(20), to: ago(10) })).count).toMatchObject({ events: 2, fromArchive: 0 });
    expect((await planned({ from: ago(25) })).count.events).toBe(3);
    const result = await run({ plan: await planned({ from: ago(25), key: "a" }) });
    expect(result).toMatchObject({ sent: 2, complete: true });
    expect((await readTopic(topic, atLeast(2))).map(idOf)).toEqual([ids[1] ?? "", ids[3] ?? ""]);
  });

  test("a dry run, and an empty range, send nothing, take no lock and leave no audit row", async () => {
    await insertHistory(5, 5);
    const ownership = startRelay();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    const owner = await readOwner(source);
    expect((await planned()).count.events).toBe(10);
    const nothing = await planned({ key: "unknown" });
    expect(nothing.count).toEqual({ events: 0, fromArchive: 0, fromOutbox: 0, firstSeq: null, lastSeq: null });
    expect(await run({ plan: nothing })).toMatchObject({ sent: 0, complete: true });
    expect(await readOwner(source)).toEqual(owner);
    const admin = await openAdmin(testKafka());
    expect(await admin.endOffsets(topic)).toMatchObject([{ offset: "0" }]);
    await admin.close();
    await expect(audits()).rejects.toThrow("doesn't exist");
  });

  test("republishing refuses events that inboxes may have pruned, and an empty range", async () => {
    const now = await databaseNow(database);
    const before = (ms: number) => new Date(now.getTime() - ms);
    await expect(planned({ from: before(retentionMs + 60_000) })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringMatching(/too old .* kept for 15 days/),
    });
    expect((await planned({ from: before(retentionMs - 60_000) })).count.events).toBe(0);
    await expect(planned({ from: before(2 * dayMs) }, 1)).rejects.toThrow("kept for 1 day and");
    await expect(planned({ from: before(1_000), to: before(2_000) })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await expect(planned({ from: before(-60_000) })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test("a source is taken by one operator at a time, and its relay gets it back within seconds", async () => {
    const ownership = startRelay();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    const taken = await takeSource(source, { onWait: () => undefined });
    await expect(takeSource(source, { onWait: () => undefined })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("Another operator"),
    });
    expect(ownership.isFresh()).toBe(false);
    // Longer than the server keeps a silent connection.
    await Bun.sleep(6_000);
    taken.requireOwned();
    expect(ownership.isFresh()).toBe(false);
    await taken.release();
    await eventually(() => expect(ownership.isFresh()).toBe(true), 5_000);
  }, 60_000);

  test("an account that may not end the relay's connection gets an error that names the missing right", async () => {
    const ownership = startRelay();
    await eventually(() => expect(ownership.isFresh()).toBe(true));
    const limited = await sourceWith((user) => [`GRANT SELECT ON ${schema.name}.* TO '${user}'@'%'`]);
    await expect(takeSource(limited, { onWait: () => undefined })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("CONNECTION ADMIN"),
    });
    expect(ownership.isFresh()).toBe(true);
  });

  test("republishing stops when it loses the lock, and reports how far it got", async () => {
    await insertHistory(600, 600);
    const interrupted = run({
      openProducer: async () => {
        const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
        let sends = 0;
        return {
          ...producer,
          async send(to, records) {
            await producer.send(to, records);
            if (++sends === 2) await killOwner();
          },
        };
      },
    });
    // The first batch has 10 events, the second 500.
    await expect(interrupted).rejects.toThrow(/stopped after 510 of 1200 events .* lock on the source order was lost/);
    expect(await audits()).toMatchObject([{ result: { sent: 510, outcome: "FAILED" } }]);
    // It has released everything, so it can run again.
    expect(await run()).toMatchObject({ sent: 1_200, complete: true });
  });

  async function killOwner(): Promise<void> {
    const owner = await readOwner(source);
    await administer(`KILL CONNECTION ${owner?.connectionId}`);
    const lock = lockNameOf(schema.name, outboxTable);
    await eventually(async () =>
      expect(await administer("SELECT IS_FREE_LOCK(?) AS free", [lock])).toEqual([{ free: 1 } as never]),
    );
    await Bun.sleep(50);
  }

  test("a republishing send whose answer was lost is repeated before the next one, so first occurrences stay in order", async () => {
    const ids = await insertHistory(300, 300);
    let opened = 0;
    await run({
      openProducer: async () => {
        const producer = await openProducer({ ...testKafka(), timeoutMs: 2_000 });
        opened++;
        let sends = 0;
        return {
          ...producer,
          async send(to, records) {
            await producer.send(to, records);
            if (opened === 1 && ++sends === 2) throw new Error("Sending took longer than 2000 ms.");
          },
        };
      },
    });
    expect(opened).toBe(2);
    const seen = (await readTopic(topic, atLeast(1_100))).map(idOf);
    expect(seen.length).toBe(1_100);
    expect([...new Set(seen)]).toEqual([...ids]);
  });

  test("republishing ends with an error if the broker stays away, and stops on request", async () => {
    await insertHistory(20, 20);
    const away = { brokers: [{ host: "127.0.0.1", port: 1 }] };
    await expect(
      run({ openProducer: () => openProducer({ ...testKafka(), ...away, timeoutMs: 2_000 }) }),
    ).rejects.toThrow(/stopped after 0 of 40/);
    const stopping = new AbortController();
    const stopped = await run({ signal: stopping.signal, onProgress: () => stopping.abort() });
    expect(stopped).toMatchObject({ sent: 10, complete: false });
    expect((await audits()).map(({ result }) => (result as { outcome: string }).outcome)).toEqual([
      "FAILED",
      "STOPPED",
    ]);
  });

  test("republishing stops at an event that cannot be encoded, and names it", async () => {
    const id = only(await insert([{ key: "a", status: "PUBLISHED", payload: "not JSON" }]));
    await expect(run()).rejects.toThrow(new RegExp(`The event ${id} \\(seq \\d+\\) cannot be encoded`));
  });
});
