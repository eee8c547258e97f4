/**
 * The explorer, a model checker: it visits every state that some orders can reach together, and checks each of them.
 *
 * A state is everything that exists about the orders at one moment: their rows in the three services, events that are
 * committed, sent or handled, calls to the payment gateway in flight, the gateway's ledger, and the stock. A step is one
 * thing that can happen next: the relay sends an event, a service handles one, a call reaches the gateway, an answer is
 * lost, a client cancels. In most states several things can happen, and the explorer follows each of them. So it covers
 * every order of events, and every crash and repetition that the options allow, instead of samples.
 *
 * What is checked: no step breaks a promise (world/promises.ts); when nothing is left to do, every order has ended as
 * it should; and from every state the orders can reach an end. The search is breadth-first, so a counterexample is
 * always a shortest one.
 */
import { messageOf } from "../../../services/kit/errors.ts";
import { checkStock, outcomeOf } from "../world/promises.ts";
import { GrowingArray } from "./growing-array.ts";
import { ProgressGraph } from "./progress-graph.ts";
import { type SagaOptions, Sagas } from "./sagas.ts";
import { createStateTable, type StateTable } from "./state-table.ts";

/** What was visited. If a promise is broken, only what was visited before. */
export interface Exploration {
  readonly states: number;
  /** All steps from all states, including those that change nothing. */
  readonly transitions: number;
  /** How many steps the farthest state is away from the start. */
  readonly depth: number;
  /** The number of end states, by the outcomes of the orders in them. */
  readonly ends: ReadonlyMap<string, number>;
  readonly counterexample: Counterexample | undefined;
}

export interface Counterexample {
  readonly message: string;
  /** A shortest sequence of steps from the start to the problem. */
  readonly steps: readonly string[];
}

/** Stops an exploration that would never end. */
const statesMax = 20_000_000;

/** Explores everything that can happen to the orders, up to the first broken promise. */
export function explore(options: SagaOptions): Exploration {
  return new Search(options).run();
}

class Search {
  readonly #options: SagaOptions;
  readonly #orders: number;
  readonly #sagas: Sagas;
  /** A state is stored as the numbers of its orders' states, followed by the number of the stock. */
  readonly #table: StateTable;
  /** For each state, the one from which it was first reached. */
  readonly #parents = new GrowingArray();
  readonly #progress = new ProgressGraph();
  readonly #ends = new Map<string, number>();
  readonly #state: Int32Array;
  readonly #after: Int32Array;
  #transitions = 0;
  #depth = 0;

  constructor(options: SagaOptions) {
    this.#options = options;
    this.#orders = options.orders.length;
    this.#sagas = new Sagas(options);
    this.#table = createStateTable(this.#orders + 1);
    this.#state = new Int32Array(this.#orders + 1);
    this.#after = new Int32Array(this.#orders + 1);
  }

  run(): Exploration {
    const table = this.#table;
    table.add(Int32Array.from([...this.#sagas.starts, this.#sagas.stockStart]));
    this.#parents.push(-1);
    /** The first state that is one step farther from the start. */
    let nextDepthFrom = 1;
    for (let id = 0; id < table.size(); id++) {
      if (id === nextDepthFrom) {
        this.#depth++;
        nextDepthFrom = table.size();
      }
      const counterexample = this.#visit(id);
      if (counterexample !== undefined) return this.#result(counterexample);
    }
    const stuck = this.#progress.firstWithoutEnd();
    if (stuck === undefined) return this.#result(undefined);
    return this.#result({ message: "I4: no end can be reached from here", steps: this.#pathTo(stuck) });
  }

  /** Takes every step from the state. */
  #visit(id: number): Counterexample | undefined {
    const state = this.#state;
    this.#table.read(id, state);
    this.#progress.addState();
    const stock = state[this.#orders] ?? 0;
    let ended = 0;
    for (let index = 0; index < this.#orders; index++) {
      const { steps, isEnd, broken } = this.#sagas.stepsOf(state[index] ?? 0, stock);
      if (broken !== undefined) {
        return { message: broken.message, steps: [...this.#pathTo(id), this.#labelOf(index, broken.label)] };
      }
      if (isEnd) ended++;
      this.#transitions += steps.length;
      for (const step of steps) {
        if (step.order === state[index] && step.stock === stock) continue;
        const counterexample = this.#take(id, index, step.order, step.stock, step.isProgress);
        if (counterexample !== undefined) return counterexample;
      }
    }
    if (ended === this.#orders) this.#addEnd(id);
    return undefined;
  }

  /** Takes one step of the order `index` from the state `from`, which is in `#state`. */
  #take(from: number, index: number, order: number, stock: number, isProgress: boolean): Counterexample | undefined {
    const after = this.#after;
    after.set(this.#state);
    after[index] = order;
    after[this.#orders] = stock;
    const { id, isNew } = this.#table.add(after);
    if (isProgress) this.#progress.addStep(id);
    if (!isNew) return undefined;
    this.#parents.push(from);
    const message = this.#table.size() > statesMax ? `there are more than ${statesMax} states` : this.#stockProblem();
    return message === undefined ? undefined : { message, steps: this.#pathTo(id) };
  }

  /** Checks the stock of the state in `#after`. */
  #stockProblem(): string | undefined {
    const reservations = Array.from({ length: this.#orders }, (_, index) =>
      this.#sagas.rowOf(this.#after[index] ?? 0, "inventory"),
    );
    try {
      checkStock(this.#options.stock, this.#sagas.stockOf(this.#after[this.#orders] ?? 0), reservations);
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  #addEnd(id: number): void {
    this.#progress.addEnd(id);
    const outcomes = Array.from(this.#state.subarray(0, this.#orders), (order) =>
      outcomeOf(this.#sagas.rowOf(order, "order")),
    );
    const ending = outcomes.join(" + ");
    this.#ends.set(ending, (this.#ends.get(ending) ?? 0) + 1);
  }

  #result(counterexample: Counterexample | undefined): Exploration {
    return {
      states: this.#table.size(),
      transitions: this.#transitions,
      depth: this.#depth,
      ends: this.#ends,
      counterexample,
    };
  }

  /** The labels of the steps from the start to the state. */
  #pathTo(id: number): readonly string[] {
    const labels: string[] = [];
    for (let here = id; this.#parents.get(here) >= 0; here = this.#parents.get(here)) {
      labels.push(this.#labelBetween(this.#parents.get(here), here));
    }
    return labels.reverse();
  }

  /** The label of the step that leads from one state to the other. */
  #labelBetween(from: number, to: number): string {
    const [before, after] = [new Int32Array(this.#orders + 1), new Int32Array(this.#orders + 1)];
    this.#table.read(from, before);
    this.#table.read(to, after);
    for (let index = 0; index < this.#orders; index++) {
      const isOther = (at: number) => at !== index && at !== this.#orders;
      if (before.some((value, at) => isOther(at) && value !== after[at])) continue;
      const { steps } = this.#sagas.stepsOf(before[index] ?? 0, before[this.#orders] ?? 0);
      const step = steps.find((it) => it.order === after[index] && it.stock === after[this.#orders]);
      if (step !== undefined) return this.#labelOf(index, step.label);
    }
    throw new Error(`No step leads from state ${from} to state ${to}.`);
  }

  #labelOf(index: number, label: string): string {
    return this.#orders === 1 ? label : `order ${index + 1}: ${label}`;
  }
}
