/** The archive dies, and another one continues: every row must be in the outbox or in the archive, and never in both. */
import { eventually } from "../../../services/kit/testing.ts";
import { archiveAll, archiveTable, outboxTable } from "../processes.ts";
import { appendEvents } from "./events.ts";
import { countRows, crashProcess, demand, type Run, recoveryTimeoutMs } from "./run.ts";

const eventsPerRun = 20;

export const runArchive: Run = async (passing, { point, schema, database }) => {
  for (const table of [outboxTable, archiveTable]) await database.execute(`DELETE FROM ${table}`);
  const events = await appendEvents(database, eventsPerRun);
  await database.execute(
    `UPDATE ${outboxTable} SET status = 'PUBLISHED', published_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR`,
  );
  const before = await database.query(`SELECT id, payload, seq FROM ${outboxTable} AS event ORDER BY event.seq`);

  const place = { databaseUrl: schema.url, schema: schema.name, topic: "none", group: "none" };
  const { ids } = await crashProcess(point, passing, place);
  const inOutbox = await countRows(database, outboxTable, "id", ids);
  const inArchive = await countRows(database, archiveTable, "id", ids);
  demand(inOutbox === ids.length, "rows left the outbox before the commit");
  demand(inArchive === 0, "rows are in the outbox and in the archive");

  await eventually(async () => {
    await archiveAll(database);
    const left = await countRows(database, outboxTable, "id", [...events.keys()]);
    demand(left === 0, `${left} rows were not archived after the restart`);
  }, recoveryTimeoutMs);
  const after = await database.query(`SELECT id, payload, seq FROM ${archiveTable} AS event ORDER BY event.seq`);
  demand(Bun.deepEquals(before, after), "the archive does not hold each row of the outbox exactly once");
  return { duplicates: 0 };
};
