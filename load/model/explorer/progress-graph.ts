/** The steps between states that are progress, kept to find states from which progress alone reaches no end. */
import { GrowingArray } from "./growing-array.ts";

export class ProgressGraph {
  /** The targets of all steps, in the order of the states that they start from. */
  readonly #targets = new GrowingArray();
  /** For each state, where its targets begin. */
  readonly #targetsFrom = new GrowingArray();
  readonly #ends: number[] = [];

  /** Starts the next state. States come in the order of their numbers. */
  addState(): void {
    this.#targetsFrom.push(this.#targets.length);
  }

  /** Adds a step from the last state that was started. */
  addStep(target: number): void {
    this.#targets.push(target);
  }

  /** Notes that the orders of the state have all ended. */
  addEnd(state: number): void {
    this.#ends.push(state);
  }

  /** The first state from which no end can be reached, found by walking backwards from all ends. */
  firstWithoutEnd(): number | undefined {
    const states = this.#targetsFrom.length;
    const { sources, sourcesFrom } = this.#reversed(states);
    const reachesEnd = new Uint8Array(states);
    const waiting = [...this.#ends];
    for (const state of this.#ends) reachesEnd[state] = 1;
    for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) {
      for (let edge = sourcesFrom[state] ?? 0; edge < (sourcesFrom[state + 1] ?? 0); edge++) {
        const source = sources[edge] ?? 0;
        if (reachesEnd[source] === 1) continue;
        reachesEnd[source] = 1;
        waiting.push(source);
      }
    }
    const first = reachesEnd.indexOf(0);
    return first < 0 ? undefined : first;
  }

  /** The steps by target: the sources of state `n` are at `sourcesFrom[n]` up to `sourcesFrom[n + 1]` in `sources`. */
  #reversed(states: number): { readonly sources: Int32Array; readonly sourcesFrom: Int32Array } {
    const targets = this.#targets;
    const sourcesFrom = new Int32Array(states + 1);
    for (let edge = 0; edge < targets.length; edge++) {
      const target = targets.get(edge);
      sourcesFrom[target + 1] = (sourcesFrom[target + 1] ?? 0) + 1;
    }
    for (let state = 0; state < states; state++) {
      sourcesFrom[state + 1] = (sourcesFrom[state + 1] ?? 0) + (sourcesFrom[state] ?? 0);
    }
    const sources = new Int32Array(targets.length);
    const filled = sourcesFrom.slice();
    for (let state = 0; state < states; state++) {
      const end = state + 1 < states ? this.#targetsFrom.get(state + 1) : targets.length;
      for (let edge = this.#targetsFrom.get(state); edge < end; edge++) {
        const target = targets.get(edge);
        const place = filled[target] ?? 0;
        sources[place] = state;
        filled[target] = place + 1;
      }
    }
    return { sources, sourcesFrom };
  }
}
