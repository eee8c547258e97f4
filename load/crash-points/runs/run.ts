/** One run at a crash point: a process dies there, another one continues, and the promises are checked. */
import { join } from "node:path";
import type { Database } from "../../../services/kit/database.ts";
import type { TestSchema } from "../../../services/kit/testing.ts";
import { runCommand } from "../../../services/stack/run-command.ts";
import type { Point, Witness } from "../points.ts";
import type { Place } from "../processes.ts";

/**
 * One run. Returns how many events came a second time, and had no second effect.
 * @param passing the process dies when it passes the point for this time.
 * @throws Error that says what is wrong.
 */
export type Run = (passing: number, setup: RunSetup) => Promise<{ readonly duplicates: number }>;

/** What the runs of a point share. */
export interface RunSetup {
  readonly point: Point;
  readonly schema: TestSchema;
  readonly database: Database;
  /** Topics to delete at the end; each run adds its own. */
  readonly topics: string[];
}

/** For what follows the crash: all events delivered, all rows archived. */
export const recoveryTimeoutMs = 30_000;

const root = join(import.meta.dir, "../../..");
const victimTimeoutMs = 30_000;
/** A shell's exit code for SIGKILL and for SIGTERM, which `runCommand` sends when the time is over. */
const killed = 137;
const timedOut = 143;

/** Starts a process and waits until it has died at the point. @throws Error if it did not, or died of something else. */
export async function crashProcess(point: Point, passing: number, place: Place): Promise<Witness> {
  const { exitCode, stdout, stderr } = await runCommand([process.execPath, "load/crash-points/victim.ts"], {
    folder: root,
    env: {
      DATABASE_URL: place.databaseUrl,
      TOPIC: place.topic,
      CRASH_POINT: point,
      CRASH_PASSING: String(passing),
      CRASH_SCHEMA: place.schema,
      CRASH_GROUP: place.group,
    },
    timeoutMs: victimTimeoutMs,
  });
  demand(exitCode !== timedOut, `the process did not reach the point within ${victimTimeoutMs} ms`);
  demand(
    exitCode === killed,
    `the process ended before the point, with exit code ${exitCode}: ${stderr.slice(0, 500)}`,
  );
  const witness = JSON.parse(stdout) as Witness;
  demand(witness.point === point, "the process died at another point");
  return witness;
}

/** Counts the rows whose `column` is one of `values`. */
export async function countRows(
  database: Database,
  table: string,
  column: string,
  values: readonly string[],
  status?: string,
): Promise<number> {
  const condition = status === undefined ? "" : "AND status = ?";
  const [row] = await database.query(`SELECT COUNT(*) AS n FROM ${table} WHERE ${column} IN (?) ${condition}`, [
    values,
    ...(status === undefined ? [] : [status]),
  ]);
  return Number(row?.n);
}

/** @throws Error with the message `otherwise`, unless the condition holds. */
export function demand(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
