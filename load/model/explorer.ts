/** Breadth-first over every state that some orders can be in together. */
import { messageOf } from "../../services/kit/errors.ts";
import { createSagas, type SagaOptions, type Sagas } from "./saga.ts";
import { createStateTable, type StateTable } from "./state-table.ts";
import { checkStock } from "./world.ts";

/** What was seen. Where something is broken, only what was seen before it. */
export interface Exploration {
  readonly states: number;
  /** Everything that could happen in any state, also where it changed nothing. */
  readonly transitions: number;
  /** The longest of all shortest ways to a state. */
  readonly depth: number;
  /** How many end states there are, by how the orders ended in them. */
  readonly ends: ReadonlyMap<string, number>;
  readonly counterexample: Counterexample | undefined;
}

export interface Counterexample {
  readonly message: string;
  /** The shortest way there. */
  readonly steps: readonly string[];
}

/** An explicit end to an exploration that finds none. */
const statesMax = 20_000_000;

/** Explores all that can happen to the orders, up to the first broken promise. */
export function explore(options: SagaOptions): Exploration {
  const sagas = createSagas(options);
  const orders = options.orders.length;
  // A state is the numbers of its orders' states and of the stock that they share.
  const table = createStateTable(orders + 1);
  const parents = new Growing();
  /** Ends of the steps that are progress, and where each state's begin. */
  const targets = new Growing();
  const targetsFrom = new Growing();
  const ends = new Map<string, number>();
  const endStates: number[] = [];
  let transitions = 0;
  let depth = 0;
  /** Where the states begin that are one step further away. */
  let nextDepthFrom = 1;
  let at = 0;

  const found = (message: string, steps: readonly string[]): Exploration => ({
    states: table.size(),
    transitions,
    depth,
    ends,
    counterexample: { message, steps },
  });

  const start = Int32Array.from([...sagas.starts, sagas.stockStart]);
  table.add(start);
  parents.push(-1);

  const state = new Int32Array(orders + 1);
  const after = new Int32Array(orders + 1);
  for (; at < table.size(); at++) {
    if (at === nextDepthFrom) {
      depth++;
      nextDepthFrom = table.size();
    }
    table.read(at, state);
    const stock = state[orders] ?? 0;
    targetsFrom.push(targets.length);
    let ended = 0;
    for (let index = 0; index < orders; index++) {
      const { steps, isEnd, broken } = sagas.stepsOf(state[index] ?? 0, stock);
      if (broken !== undefined) {
        return found(broken.message, [...pathTo(at), labelOf(options, index, broken.label)]);
      }
      if (isEnd) ended++;
      for (const step of steps) {
        transitions++;
        if (step.order === state[index] && step.stock === stock) continue;
        after.set(state);
        after[index] = step.order;
        after[orders] = step.stock;
        const { id, isNew } = table.add(after);
        if (isNew) {
          parents.push(at);
          const problem = stockProblem(sagas, options, after);
          if (problem !== undefined) return found(problem, pathTo(id));
          if (table.size() > statesMax)
            return found(`more than ${statesMax} states: there is no end to it`, pathTo(id));
        }
        if (step.isProgress) targets.push(id);
      }
    }
    if (ended === orders) {
      endStates.push(at);
      const ending = sagas.starts.map((_, index) => sagas.endingOf(state[index] ?? 0)).join(" + ");
      ends.set(ending, (ends.get(ending) ?? 0) + 1);
    }
  }
  targetsFrom.push(targets.length);
  at--;

  const lost = firstWithoutEnd(table.size(), targets, targetsFrom, endStates);
  if (lost !== undefined) return found("I4: from here no end can be reached", pathTo(lost));
  return { states: table.size(), transitions, depth, ends, counterexample: undefined };

  function pathTo(id: number): readonly string[] {
    const labels: string[] = [];
    for (let here = id; parents.get(here) >= 0; here = parents.get(here)) {
      labels.push(labelOfStep(sagas, options, table, parents.get(here), here));
    }
    return labels.reverse();
  }
}

function labelOf(options: SagaOptions, index: number, label: string): string {
  return options.orders.length === 1 ? label : `order ${index + 1}: ${label}`;
}

/** The words for the step that leads from one state to another. */
function labelOfStep(sagas: Sagas, options: SagaOptions, table: StateTable, from: number, to: number): string {
  const orders = options.orders.length;
  const [before, after] = [new Int32Array(orders + 1), new Int32Array(orders + 1)];
  table.read(from, before);
  table.read(to, after);
  for (let index = 0; index < orders; index++) {
    const others = [...before.keys()].filter((at) => at !== index && at !== orders);
    if (others.some((at) => before[at] !== after[at])) continue;
    const { steps } = sagas.stepsOf(before[index] ?? 0, before[orders] ?? 0);
    const step = steps.find((it) => it.order === after[index] && it.stock === after[orders]);
    if (step !== undefined) return labelOf(options, index, step.label);
  }
  throw new Error(`No step leads from state ${from} to state ${to}.`);
}

function stockProblem(sagas: Sagas, options: SagaOptions, state: Int32Array): string | undefined {
  const orders = options.orders.length;
  const reservations = Array.from({ length: orders }, (_, index) => sagas.reservationOf(state[index] ?? 0));
  try {
    checkStock(options.stock, sagas.stockOf(state[orders] ?? 0), reservations);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** The first state from which progress alone leads to no end: found by going backwards from all ends. */
function firstWithoutEnd(
  states: number,
  targets: Growing,
  targetsFrom: Growing,
  endStates: readonly number[],
): number | undefined {
  const sourcesFrom = new Int32Array(states + 1);
  for (let edge = 0; edge < targets.length; edge++) {
    const target = targets.get(edge);
    sourcesFrom[target + 1] = (sourcesFrom[target + 1] ?? 0) + 1;
  }
  for (let id = 0; id < states; id++) sourcesFrom[id + 1] = (sourcesFrom[id + 1] ?? 0) + (sourcesFrom[id] ?? 0);
  const sources = new Int32Array(targets.length);
  const filled = sourcesFrom.slice();
  for (let id = 0; id < states; id++) {
    for (let edge = targetsFrom.get(id); edge < targetsFrom.get(id + 1); edge++) {
      const target = targets.get(edge);
      const place = filled[target] ?? 0;
      sources[place] = id;
      filled[target] = place + 1;
    }
  }
  const reaches = new Uint8Array(states);
  const waiting = [...endStates];
  for (const id of endStates) reaches[id] = 1;
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    for (let edge = sourcesFrom[id] ?? 0; edge < (sourcesFrom[id + 1] ?? 0); edge++) {
      const source = sources[edge] ?? 0;
      if (reaches[source] === 1) continue;
      reaches[source] = 1;
      waiting.push(source);
    }
  }
  const lost = reaches.indexOf(0);
  return lost < 0 ? undefined : lost;
}

/** Whole numbers in a row, 4 bytes each. */
class Growing {
  private numbers = new Int32Array(1_024);
  length = 0;

  push(value: number): void {
    if (this.length === this.numbers.length) {
      const larger = new Int32Array(this.length * 2);
      larger.set(this.numbers);
      this.numbers = larger;
    }
    this.numbers[this.length++] = value;
  }

  get(at: number): number {
    const value = this.numbers[at];
    if (value === undefined || at >= this.length) throw new Error(`There is no number at ${at}.`);
    return value;
  }
}
