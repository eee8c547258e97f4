/**
 * The crash-point sweep: a process of the delivery code is killed at a point, another one goes on, and what the promises
 * say is compared with what lies in the tables and on the topic.
 */

import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { toOutboxRow, toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { OrderCompletedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { distinct, firstOccurrences, idOf, readTopic, testKafka } from "../../relay/testing.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { environment } from "../../services/kit/config.ts";
import { type Database, insertRows } from "../../services/kit/database.ts";
import { messageOf } from "../../services/kit/errors.ts";
import { createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { type Point, points, type Witness } from "./points.ts";
import {
  archiveAll,
  archiveTable,
  eventType,
  openTopicSize,
  outboxTable,
  type Place,
  service,
  startInboxConsumer,
  startRelay,
} from "./processes.ts";

/** What came of a point. */
export interface PointResult {
  readonly point: Point;
  readonly times: number;
  /** Processes that died at the point, as they told and as the tables and the topic show. */
  readonly witnesses: number;
  /** Events that came a second time, and had no second effect. */
  readonly duplicates: number;
  /** What was wrong; empty when all is well. */
  readonly problems: readonly string[];
}

const root = join(import.meta.dir, "../..");
/** A group waits 6 s for a member that was killed: runs wait side by side. */
const consumersAtOnce = 6;
const victimTimeoutMs = 30_000;
const settleTimeoutMs = 30_000;
const keysPerRun = 6;
const eventsPerRun = 60;
/** So few that the relay has read them all at once: it marks them beside its next read, or else those that come next. */
const trickledPerRun = 8;
const trickleIntervalMs = 50;
const archivedPerRun = 20;

/** Kills `times` processes at each of the points; `report` hears of each point as it is done. */
export async function sweep(
  options: { readonly times: number; readonly only?: readonly Point[] },
  report: (result: PointResult) => void = () => undefined,
): Promise<readonly PointResult[]> {
  const swept = (options.only ?? points).map(async (point) => {
    const result = await sweepPoint(point, options.times);
    report(result);
    return result;
  });
  return await Promise.all(swept);
}

/** One run: a process that is killed and what came after. Throws what was wrong. */
type Run = (at: number, world: World) => Promise<{ readonly duplicates: number }>;

interface World {
  readonly point: Point;
  readonly schema: TestSchema;
  readonly database: Database;
  /** What is to be deleted in the end. */
  readonly topics: string[];
}

async function sweepPoint(point: Point, times: number): Promise<PointResult> {
  const { run, atOnce, turns, schemaOf } = plan(point);
  const schema = await createServiceSchema(schemaOf);
  const database = schema.open(6);
  if (schemaOf === service) {
    await database.execute("CREATE TABLE effect (event_id CHAR(36) NOT NULL, aggregate_id VARCHAR(128) NOT NULL)");
  }
  const topics: string[] = [];
  const world = { point, schema, database, topics };
  const problems: string[] = [];
  let witnesses = 0;
  let duplicates = 0;
  let next = 0;
  const lane = async () => {
    for (let number = next++; number < times; number = next++) {
      try {
        const result = await run(1 + (number % turns), world);
        witnesses++;
        duplicates += result.duplicates;
      } catch (error) {
        problems.push(`run ${number + 1}: ${messageOf(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  await Promise.all([schema.drop(), deleteTopics(topics)]);
  return { point, times, witnesses, duplicates, problems };
}

interface Plan {
  readonly run: Run;
  readonly atOnce: number;
  /** With 2, runs die at the first and at the second passing of the point by turns: with something done before, and not. */
  readonly turns: 1 | 2;
  /** The service whose tables the schema has. */
  readonly schemaOf: string;
}

function plan(point: Point): Plan {
  switch (point) {
    case "in archive between insert and delete":
      return { run: killArchive, atOnce: 1, turns: 2, schemaOf: "order" };
    case "in consumer before commit":
    case "in consumer after commit":
    case "before offset commit":
      return { run: killConsumer, atOnce: consumersAtOnce, turns: 2, schemaOf: service };
    case "in the middle of mark beside a read":
      return { run: killRelay, atOnce: 1, turns: 1, schemaOf: "order" };
    default:
      return { run: killRelay, atOnce: 1, turns: 2, schemaOf: "order" };
  }
}

const marksBesideRead = (point: Point) => point === "in the middle of mark beside a read";
const isInMark = (point: Point) => point === "in the middle of mark" || marksBesideRead(point);

const killRelay: Run = async (at, { point, schema, database, topics }) => {
  await database.execute(`DELETE FROM ${outboxTable}`);
  const { topic, size } = await createRunTopic(topics);
  const place: Place = { databaseUrl: schema.url, schema: schema.name, topic, group: topic };
  const events = new Map(await appendEvents(database, marksBesideRead(point) ? trickledPerRun : eventsPerRun));

  const dead = new AbortController();
  const trickling = marksBesideRead(point) ? trickle(database, events, dead.signal) : undefined;
  const killed = kill(point, at, place).finally(() => dead.abort());
  const [{ ids, acknowledged }] = await Promise.all([killed, trickling]);
  const onTopic = await size();
  const isSent = point !== "after read";
  const expected = acknowledged + (point === "after send before ack" ? ids.length : 0);
  // While a mark is halted, sending goes on.
  const isExpected = isInMark(point) ? onTopic >= expected : onTopic === expected;
  demand(isExpected, `${onTopic} records on the topic at the death, not ${expected}`);
  // What was in the middle goes either way: the server may carry out what it was told before it sees that nobody asks.
  if (!isInMark(point)) {
    const pending = await countRows(database, outboxTable, ids, "PENDING");
    demand(pending === ids.length, `${ids.length - pending} rows were marked before the death`);
  }

  const relay = await startRelay(place, database);
  try {
    await eventually(async () => {
      const published = await countRows(database, outboxTable, [...events.keys()], "PUBLISHED");
      demand(published === events.size, `${events.size - published} rows were not published after the restart`);
    }, settleTimeoutMs);
  } finally {
    await relay.close();
  }
  const total = await size();
  const records = await readTopic(topic, (read) => distinct(events.size)(read) && read.length >= total);
  const rows = await database.query<{ id: string; key: string }>(
    `SELECT id, aggregate_id AS \`key\` FROM ${outboxTable} AS event ORDER BY event.seq`,
  );
  const byKey = Map.groupBy(rows, (row) => row.key);
  const occurrences = firstOccurrences(records);
  for (const [key, wanted] of byKey) {
    const seen = (occurrences.get(key) ?? []).map(idOf);
    demand(seen.join() === wanted.map(({ id }) => id).join(), `${key}: lost, or out of order, or with a gap`);
  }
  const duplicates = records.length - events.size;
  // Where the broker had the batch and nobody had marked it, it comes again.
  if (isSent && !isInMark(point)) demand(duplicates >= ids.length, "what was sent did not come again");
  return { duplicates };
};

const killArchive: Run = async (at, { point, schema, database }) => {
  for (const table of [outboxTable, archiveTable]) await database.execute(`DELETE FROM ${table}`);
  const events = await appendEvents(database, archivedPerRun);
  await database.execute(
    `UPDATE ${outboxTable} SET status = 'PUBLISHED', published_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR`,
  );
  const before = await database.query(`SELECT id, payload, seq FROM ${outboxTable} AS event ORDER BY event.seq`);
  const place: Place = { databaseUrl: schema.url, schema: schema.name, topic: "none", group: "none" };

  const { ids } = await kill(point, at, place);
  demand((await countRows(database, outboxTable, ids)) === ids.length, "rows had left the outbox uncommitted");
  demand((await countRows(database, archiveTable, ids)) === 0, "rows are in the outbox and in the archive");

  await eventually(async () => {
    await archiveAll(database);
    const left = await countRows(database, outboxTable, [...events.keys()]);
    demand(left === 0, `${left} rows were not archived after the restart`);
  }, settleTimeoutMs);
  const after = await database.query(`SELECT id, payload, seq FROM ${archiveTable} AS event ORDER BY event.seq`);
  demand(Bun.deepEquals(before, after), "the archive does not hold what the outbox held, each row once");
  return { duplicates: 0 };
};

const killConsumer: Run = async (at, { point, schema, database, topics }) => {
  const { topic } = await createRunTopic(topics);
  const place: Place = { databaseUrl: schema.url, schema: schema.name, topic, group: topic };
  const ids = await produceEvents(topic);

  const witness = await kill(point, at, place);
  const isCommitted = point !== "in consumer before commit";
  const inInbox = await countRows(database, `${service}_inbox_event`, witness.ids, undefined, "event_id");
  const effects = await countRows(database, "effect", witness.ids, undefined, "event_id");
  const expected = isCommitted ? witness.ids.length : 0;
  demand(
    witness.ids.length > 0 && inInbox === expected && effects === expected,
    "died on the other side of the commit",
  );

  const consumer = await startInboxConsumer(place, database);
  let duplicates = 0;
  try {
    await eventually(async () => {
      const done = await countRows(database, "effect", ids, undefined, "event_id");
      demand(done >= ids.length, `${ids.length - done} events had no effect after the restart`);
    }, settleTimeoutMs);
    // Offsets that were not committed: what had its effect is delivered again.
    if (isCommitted) {
      await eventually(async () => {
        duplicates = await consumer.duplicates();
        demand(duplicates >= witness.ids.length, "what was handled did not come again");
      }, settleTimeoutMs);
    }
  } finally {
    await consumer.close();
  }
  const done = await countRows(database, "effect", ids, undefined, "event_id");
  const keys = [...new Set(ids.map((id) => keyOf(id, topic)))];
  const published = await countRows(database, `${service}_outbox_event`, keys, undefined, "aggregate_id");
  demand(done === ids.length, `${done} effects of ${ids.length} events`);
  demand(published === ids.length, `${published} answers to ${ids.length} events`);
  return { duplicates };
};

async function deleteTopics(topics: readonly string[]): Promise<void> {
  if (topics.length === 0) return;
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics(topics).finally(admin.close);
}

/** One topic at a time: asked for dozens at once, a fresh broker answers none of them in time. */
let creating: Promise<unknown> = Promise.resolve();

/** A topic of a run, and how many records are on it. It is deleted in the end. */
async function createRunTopic(topics: string[]): Promise<{ readonly topic: string; size(): Promise<number> }> {
  const topic = `sweep.${crypto.randomUUID()}`;
  topics.push(topic);
  const created = creating.then(async () => {
    const admin = await openAdmin(testKafka());
    await admin.createTopics([{ topic, partitions: 3, replication: 1, config: {} }]).finally(admin.close);
  });
  creating = created.catch(() => undefined);
  // Where many topics come and go, the broker needs a moment until it knows a new one everywhere.
  await created.catch(() => undefined);
  const size = async () => {
    const opened = await openTopicSize(topic);
    return await opened.size().finally(opened.close);
  };
  await eventually(size, settleTimeoutMs);
  return { topic, size };
}

/** Starts a process and waits until it has died at the point. @throws Error when it died of something else, or not. */
async function kill(point: Point, at: number, place: Place): Promise<Witness> {
  const child = Bun.spawn([process.execPath, "load/crash-points/victim.ts"], {
    cwd: root,
    env: {
      ...environment(),
      DATABASE_URL: place.databaseUrl,
      TOPIC: place.topic,
      SWEEP_POINT: point,
      SWEEP_AT: String(at),
      SWEEP_SCHEMA: place.schema,
      SWEEP_GROUP: place.group,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, victimTimeoutMs);
  const [said, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(timer);
  demand(!isLate, `the point was not reached within ${victimTimeoutMs} ms`);
  demand(child.signalCode === "SIGKILL", `the process ended by itself (${child.exitCode}): ${errors.slice(0, 500)}`);
  const witness = JSON.parse(said) as Witness;
  demand(witness.point === point, "another point was reached");
  return witness;
}

/** Appends some more every now and then, and adds them to `events`. */
async function trickle(database: Database, events: Map<string, string>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sleep(trickleIntervalMs, signal);
    for (const [id, key] of await appendEvents(database, trickledPerRun)) events.set(id, key);
  }
}

/** Appends events of several keys, and returns their keys by id. */
async function appendEvents(database: Database, count: number): Promise<ReadonlyMap<string, string>> {
  const run = Bun.randomUUIDv7();
  const events = new Map(
    Array.from({ length: count }, (_, index) => [Bun.randomUUIDv7(), `${run}-${index % keysPerRun}`] as const),
  );
  await insertRows(
    database,
    outboxTable,
    ["id", "aggregate_id", "type", "payload", "headers"],
    [...events].map(([id, key]) => [id, key, eventType, JSON.stringify({ orderId: key }), "{}"]),
  );
  return events;
}

/** The key of an event that {@link produceEvents} has made. */
const keyOf = (id: string, topic: string) => `${topic}-${Number.parseInt(id.slice(-4), 16) % keysPerRun}`;

/** Puts events on the topic as the relay does, and returns their ids. */
async function produceEvents(topic: string): Promise<readonly string[]> {
  const ids = Array.from({ length: eventsPerRun }, () => Bun.randomUUIDv7());
  const records = ids.map((id, index) => {
    const orderId = keyOf(id, topic);
    const message = create(OrderCompletedSchema, { orderId });
    const row = toOutboxRow({ id, aggregateId: orderId, message, headers: {} }, eventRegistry);
    return toRecord(
      { ...row, occurredAt: new Date(), seq: String(index + 1) },
      { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry },
    );
  });
  const producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
  await producer.send(topic, records);
  await producer.close();
  return ids;
}

async function countRows(
  database: Database,
  table: string,
  ids: readonly string[],
  status?: string,
  column = "id",
): Promise<number> {
  const condition = status === undefined ? "" : "AND status = ?";
  const [row] = await database.query(`SELECT COUNT(*) AS n FROM ${table} WHERE ${column} IN (?) ${condition}`, [
    ids,
    ...(status === undefined ? [] : [status]),
  ]);
  return Number(row?.n);
}

function demand(condition: boolean, problem: string): void {
  if (!condition) throw new Error(problem);
}
