/** The relay dies, and another one continues: every event must reach the topic, in order, with no gap. */
import { distinct, firstOccurrences, idOf, readTopic } from "../../../relay/testing.ts";
import { sleep } from "../../../services/kit/backoff.ts";
import type { Database } from "../../../services/kit/database.ts";
import { eventually } from "../../../services/kit/testing.ts";
import type { Point, Witness } from "../points.ts";
import { outboxTable, type Place, startRelay } from "../processes.ts";
import { createRunTopic, type RunTopic } from "../topics.ts";
import { appendEvents } from "./events.ts";
import { countRows, crashProcess, demand, type Run, recoveryTimeoutMs } from "./run.ts";

const eventsPerRun = 60;
/** Few enough for the relay to read them all at once. It marks them during its next read. */
const steadyEvents = 8;
const steadyIntervalMs = 50;

export const runRelay: Run = async (passing, { point, schema, database, topics }) => {
  await database.execute(`DELETE FROM ${outboxTable}`);
  const topic = await createRunTopic(topics);
  const place: Place = { databaseUrl: schema.url, schema: schema.name, topic: topic.topic, group: topic.topic };
  const { witness, ids } = needsSteadyEvents(point)
    ? await crashInSteadyState(point, passing, place, database)
    : await crashInBacklog(point, passing, place, database);
  await checkAtCrash(witness, topic, database);
  await publishRest(place, database, ids);
  const duplicates = await checkTopic(topic, database, ids.length);
  // What the broker had received and nothing had marked is sent again.
  const isSentAgain = point !== "after read" && !isInMark(point);
  if (isSentAgain)
    demand(duplicates >= witness.ids.length, "events that were sent before the crash were not sent again");
  return { duplicates };
};

const needsSteadyEvents = (point: Point) => point === "in the middle of mark, during the next read";
const isInMark = (point: Point) => point === "in the middle of mark" || needsSteadyEvents(point);

/** What the process was doing when it died, and all events of the run. */
interface Crashed {
  readonly witness: Witness;
  readonly ids: readonly string[];
}

async function crashInBacklog(point: Point, passing: number, place: Place, database: Database): Promise<Crashed> {
  const events = await appendEvents(database, eventsPerRun);
  return { witness: await crashProcess(point, passing, place), ids: [...events.keys()] };
}

/** A few events are appended again and again until the process is dead. */
async function crashInSteadyState(point: Point, passing: number, place: Place, database: Database): Promise<Crashed> {
  const ids = [...(await appendEvents(database, steadyEvents)).keys()];
  const dead = new AbortController();
  const crashed = crashProcess(point, passing, place).finally(() => dead.abort());
  const append = async () => {
    while (!dead.signal.aborted) {
      await sleep(steadyIntervalMs, dead.signal);
      ids.push(...(await appendEvents(database, steadyEvents)).keys());
    }
  };
  const [witness] = await Promise.all([crashed, append()]);
  return { witness, ids };
}

async function checkAtCrash({ point, ids, acknowledged }: Witness, topic: RunTopic, database: Database): Promise<void> {
  const onTopic = await topic.size();
  const expected = acknowledged + (point === "after send before ack" ? ids.length : 0);
  // While a mark waits, the relay goes on sending.
  const isExpected = isInMark(point) ? onTopic >= expected : onTopic === expected;
  demand(isExpected, `the topic had ${onTopic} records at the crash, not ${expected}`);
  // An UPDATE that was running may still be carried out: the server may notice too late that its client is gone.
  if (isInMark(point)) return;
  const pending = await countRows(database, outboxTable, "id", ids, "PENDING");
  demand(pending === ids.length, `${ids.length - pending} rows were marked before the crash`);
}

/** Another relay publishes what is left. */
async function publishRest(place: Place, database: Database, ids: readonly string[]): Promise<void> {
  const relay = await startRelay(place, database);
  try {
    await eventually(async () => {
      const published = await countRows(database, outboxTable, "id", ids, "PUBLISHED");
      demand(published === ids.length, `${ids.length - published} rows were not published after the restart`);
    }, recoveryTimeoutMs);
  } finally {
    await relay.close();
  }
}

/** Compares the topic with the outbox. Returns the number of duplicates. */
async function checkTopic({ topic, size }: RunTopic, database: Database, events: number): Promise<number> {
  const total = await size();
  const records = await readTopic(topic, (read) => distinct(events)(read) && read.length >= total);
  const rows = await database.query<{ id: string; key: string }>(
    `SELECT id, aggregate_id AS \`key\` FROM ${outboxTable} AS event ORDER BY event.seq`,
  );
  const occurrences = firstOccurrences(records);
  for (const [key, appended] of Map.groupBy(rows, (row) => row.key)) {
    const delivered = (occurrences.get(key) ?? []).map(idOf);
    demand(
      delivered.join() === appended.map(({ id }) => id).join(),
      `events of the key ${key} are lost or out of order on the topic`,
    );
  }
  return records.length - events;
}
