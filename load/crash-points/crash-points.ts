/**
 * Crash points: at each point of the delivery code a process is killed, another one continues, and the tables and the
 * topic are compared with the promises. Several runs at each point.
 */
import { messageOf } from "../../services/kit/errors.ts";
import { createServiceSchema } from "../../services/kit/testing.ts";
import { type Point, points } from "./points.ts";
import { consumer, publisher } from "./processes.ts";
import { runArchive } from "./runs/archive.ts";
import { runConsumer } from "./runs/consumer.ts";
import { runRelay } from "./runs/relay.ts";
import type { Run } from "./runs/run.ts";
import { deleteTopics } from "./topics.ts";

/** The outcome of all runs at a point. */
export interface PointResult {
  readonly point: Point;
  readonly times: number;
  /** Processes that died at the point, as they reported and as the tables and the topic confirmed. */
  readonly witnesses: number;
  /** Events that came a second time, and had no second effect. */
  readonly duplicates: number;
  /** What was wrong; empty if all is well. */
  readonly problems: readonly string[];
}

/** Kills `times` processes at every point. Calls `report` for each point as soon as its runs are over. */
export async function crashAtPoints(
  options: { readonly times: number },
  report: (result: PointResult) => void = () => undefined,
): Promise<readonly PointResult[]> {
  const crashed = points.map(async (point) => {
    const result = await crashAtPoint(point, options.times);
    report(result);
    return result;
  });
  return await Promise.all(crashed);
}

async function crashAtPoint(point: Point, times: number): Promise<PointResult> {
  const { run, concurrency, passings, service } = plan(point);
  const schema = await createServiceSchema(service);
  const database = schema.open(6);
  if (service === consumer) {
    await database.execute("CREATE TABLE effect (event_id CHAR(36) NOT NULL, aggregate_id VARCHAR(128) NOT NULL)");
  }
  const topics: string[] = [];
  const problems: string[] = [];
  let witnesses = 0;
  let duplicates = 0;
  let next = 0;
  const runNext = async () => {
    for (let number = next++; number < times; number = next++) {
      try {
        const result = await run(1 + (number % passings), { point, schema, database, topics });
        witnesses++;
        duplicates += result.duplicates;
      } catch (error) {
        problems.push(`run ${number + 1}: ${messageOf(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, runNext));
  await Promise.all([schema.drop(), deleteTopics(topics)]);
  return { point, times, witnesses, duplicates, problems };
}

interface Plan {
  readonly run: Run;
  /** How many runs go on at once. */
  readonly concurrency: number;
  /** With 2, every second process dies only when it passes the point again: it has some work done by then. */
  readonly passings: 1 | 2;
  /** The service whose tables the schema holds. */
  readonly service: string;
}

function plan(point: Point): Plan {
  switch (point) {
    case "in archive between insert and delete":
      return { run: runArchive, concurrency: 1, passings: 2, service: publisher };
    case "in consumer before commit":
    case "in consumer after commit":
    case "before offset commit":
      // Each run waits 6 s until the group drops the killed member, so several wait together.
      return { run: runConsumer, concurrency: 6, passings: 2, service: consumer };
    case "in the middle of mark, during the next read":
      return { run: runRelay, concurrency: 1, passings: 1, service: publisher };
    default:
      return { run: runRelay, concurrency: 1, passings: 2, service: publisher };
  }
}
