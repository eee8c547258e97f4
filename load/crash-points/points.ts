/**
 * The crash points: the places in the delivery code at which a process is killed. They are reached through wrapped ports
 * (store, producer, database, inbox), so the delivery code itself needs no test hooks.
 */
import { writeSync } from "node:fs";

/** In the order in which an event passes them. */
export const points = [
  "after read",
  "after send before ack",
  "after ack before mark",
  "in the middle of mark",
  "in the middle of mark, during the next read",
  "in archive between insert and delete",
  "in consumer before commit",
  "in consumer after commit",
  "before offset commit",
] as const;
export type Point = (typeof points)[number];

/** What a process prints just before it dies: proof that it died at the point, with work in flight. */
export interface Witness {
  readonly point: Point;
  /** Ids of the events in flight. */
  readonly ids: readonly string[];
  /** How many records the broker had acknowledged before. */
  readonly acknowledged: number;
}

/** Makes a process die when it passes `point` for the `passing`-th time. */
export class Crash {
  readonly #point: Point;
  readonly #passing: number;
  #passed = 0;

  constructor(point: Point, passing: number) {
    this.#point = point;
    this.#passing = passing;
  }

  /** Called each time the process passes a point. Returns whether it must die there now. */
  isDue(point: Point): boolean {
    return point === this.#point && ++this.#passed === this.#passing;
  }

  /** Prints the witness and dies as by `kill -9`: nothing is flushed, closed or rolled back. */
  async die(ids: readonly string[], acknowledged = 0): Promise<never> {
    const witness: Witness = { point: this.#point, ids, acknowledged };
    writeSync(1, JSON.stringify(witness));
    process.kill(process.pid, "SIGKILL");
    return await new Promise(() => undefined);
  }
}
