/** The process that is killed: the delivery code with wrapped ports, so that it dies at the point that the run chose. */
import { environment, integer, readConfig, text } from "../../services/kit/config.ts";
import { openDatabase } from "../../services/kit/database.ts";
import { Crash, type Point, points } from "./points.ts";
import { archiveAll, startInboxConsumer, startRelay } from "./processes.ts";

const { point, passing, ...place } = readConfig(environment(), {
  point: { variable: "CRASH_POINT", fallback: undefined, parse: parsePoint },
  passing: integer("CRASH_PASSING", { min: 1, max: 1_000 }),
  databaseUrl: text("DATABASE_URL"),
  schema: text("CRASH_SCHEMA"),
  topic: text("TOPIC"),
  group: text("CRASH_GROUP"),
});
/** Hints keep the relay reading without a pause, as under constant load, so that marks and reads overlap. */
const hintIntervalMs = 1;
const database = openDatabase({ url: place.databaseUrl, connectionsMax: 4 });
const crash = new Crash(point, passing);

switch (point) {
  case "in archive between insert and delete":
    await archiveAll(database, crash);
    break;
  case "in consumer before commit":
  case "in consumer after commit":
  case "before offset commit":
    await startInboxConsumer(place, database, crash);
    break;
  default: {
    const relay = await startRelay(place, database, crash);
    if (point === "in the middle of mark, during the next read") setInterval(() => relay.hint(), hintIntervalMs);
  }
}

function parsePoint(name: string): Point {
  const found = points.find((it) => it === name);
  if (found === undefined) throw new Error(`must be one of ${points.join(", ")}`);
  return found;
}
