/** The process that is killed: the delivery code, with its ports wrapped so that it dies at the point that it is told. */
import { environment, integer, readConfig, text } from "../../services/kit/config.ts";
import { openDatabase } from "../../services/kit/database.ts";
import { type Point, points } from "./points.ts";
import { archiveAll, startInboxConsumer, startRelay } from "./processes.ts";

const { at, point, ...place } = readConfig(environment(), {
  point: { variable: "SWEEP_POINT", fallback: undefined, parse: pointOf },
  at: integer("SWEEP_AT", { min: 1, max: 1_000 }),
  databaseUrl: text("DATABASE_URL"),
  schema: text("SWEEP_SCHEMA"),
  topic: text("TOPIC"),
  group: text("SWEEP_GROUP"),
});
/** As if something was committed all the time: the relay reads on at once, and marks beside it. */
const hintIntervalMs = 1;
const database = openDatabase({ url: place.databaseUrl, connectionsMax: 4 });
const death = { point, at };

if (point === "in archive between insert and delete") await archiveAll(database, death);
else if (point === "before offset commit" || point.startsWith("in consumer")) {
  await startInboxConsumer(place, database, death);
} else {
  const relay = await startRelay(place, database, death);
  if (point === "in the middle of mark beside a read") setInterval(() => relay.hint(), hintIntervalMs);
}

function pointOf(name: string): Point {
  const found = points.find((it) => it === name);
  if (found === undefined) throw new Error(`must be one of ${points.join(", ")}`);
  return found;
}
