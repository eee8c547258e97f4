/** A consumer dies, and another one continues: every event must have its effect exactly once. */
import type { Database } from "../../../services/kit/database.ts";
import { eventually } from "../../../services/kit/testing.ts";
import type { Witness } from "../points.ts";
import { type Place, consumer as service, startInboxConsumer } from "../processes.ts";
import { createRunTopic } from "../topics.ts";
import { produceEvents } from "./events.ts";
import { countRows, crashProcess, demand, type Run, recoveryTimeoutMs } from "./run.ts";

const eventsPerRun = 60;

export const runConsumer: Run = async (passing, { point, schema, database, topics }) => {
  const { topic } = await createRunTopic(topics);
  const place: Place = { databaseUrl: schema.url, schema: schema.name, topic, group: topic };
  const events = await produceEvents(topic, eventsPerRun);
  const ids = [...events.keys()];

  const witness = await crashProcess(point, passing, place);
  await checkAtCrash(witness, database);
  const duplicates = await handleRest(place, database, ids, witness);

  const effects = await countRows(database, "effect", "event_id", ids);
  const keys = [...new Set(events.values())];
  const published = await countRows(database, `${service}_outbox_event`, "aggregate_id", keys);
  demand(effects === ids.length, `${ids.length} events had ${effects} effects`);
  demand(published === ids.length, `${ids.length} events were answered with ${published} events`);
  return { duplicates };
};

const isCommitted = ({ point }: Witness) => point !== "in consumer before commit";

async function checkAtCrash(witness: Witness, database: Database): Promise<void> {
  const { ids } = witness;
  const inInbox = await countRows(database, `${service}_inbox_event`, "event_id", ids);
  const effects = await countRows(database, "effect", "event_id", ids);
  const expected = isCommitted(witness) ? ids.length : 0;
  demand(
    ids.length > 0 && inInbox === expected && effects === expected,
    `of ${ids.length} events in flight ${inInbox} were in the inbox at the crash, not ${expected}`,
  );
}

/** Another consumer handles what is left. Returns the number of duplicates that it dropped. */
async function handleRest(place: Place, database: Database, ids: readonly string[], witness: Witness): Promise<number> {
  const consumer = await startInboxConsumer(place, database);
  try {
    await eventually(async () => {
      const effects = await countRows(database, "effect", "event_id", ids);
      demand(effects >= ids.length, `${ids.length - effects} events had no effect after the restart`);
    }, recoveryTimeoutMs);
    if (!isCommitted(witness)) return 0;
    // The transaction was committed and the offsets were not, so the events are delivered again.
    return await eventually(async () => {
      const duplicates = await consumer.duplicates();
      demand(duplicates >= witness.ids.length, "events that were handled before the crash were not delivered again");
      return duplicates;
    }, recoveryTimeoutMs);
  } finally {
    await consumer.close();
  }
}
