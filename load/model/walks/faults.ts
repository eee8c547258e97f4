/** Strikes the parts of a walk with faults at random, until the walk heals. */
import type { Random } from "../random.ts";
import type { Journal } from "./journal.ts";

export class Faults {
  readonly #random: Random;
  readonly #journal: Journal;
  #isOver = false;

  constructor(random: Random, journal: Journal) {
    this.#random = random;
    this.#journal = journal;
  }

  /** True with a probability of `percent`, and never after `end`. A fault that strikes is written to the journal. */
  strike(percent: number, name: string): boolean {
    if (this.#isOver || !this.#random.chance(percent)) return false;
    this.#journal.fault(name);
    return true;
  }

  /** From now on no fault strikes. */
  end(): void {
    this.#isOver = true;
  }
}
