/**
 * The sagas of some orders as a state machine: for each state of an order, everything that can happen next.
 *
 * The orders share nothing but the stock. So an order's steps depend only on its own state and on the stock, and are
 * computed once for each pair of these, whatever state the other orders are in.
 */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { OrderPlaced } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import type { StockLevels } from "../../../services/inventory/domain.ts";
import type { OrderCommand } from "../../../services/order/domain.ts";
import { byService } from "../../../services/stack/services.ts";
import { noEvents } from "../world/event-summary.ts";
import { emptyAccount } from "../world/gateway.ts";
import { checkEnd } from "../world/promises.ts";
import { initialRows, type Rows } from "../world/services.ts";
import { describeProblem } from "../world/violation.ts";
import type { Candidate, Situation } from "./candidate.ts";
import { commandSteps, deliverySteps } from "./delivery-steps.ts";
import { type GatewayOptions, GatewaySteps } from "./gateway-steps.ts";
import { SagaStates, Values } from "./saga-state.ts";
import { stocksMax, Transactions } from "./transactions.ts";

export interface SagaOptions extends GatewayOptions {
  readonly orders: readonly OrderPlaced[];
  readonly stock: StockLevels;
  /** Emptied inboxes recognise no event, so that each event can be handled again at any time. */
  readonly inboxes: "kept" | "emptied";
  /** For each order, the commands that may come at any time. */
  readonly commands: readonly (readonly OrderCommand["$typeName"][])[];
}

/** One thing that can happen, and where it leads. */
export interface Step {
  readonly label: string;
  /** False for what the saga does not need in order to end: commands, redeliveries, failures. */
  readonly isProgress: boolean;
  /** The number of the order's state afterwards. */
  readonly order: number;
  /** The number of the stock afterwards. */
  readonly stock: number;
}

/** Everything that can happen to an order in one state. */
export interface Steps {
  readonly steps: readonly Step[];
  /** True if nothing is left to do for the order: every event is handled and every call is over. */
  readonly isEnd: boolean;
  /** The first step that breaks a promise, if any does. */
  readonly broken: { readonly label: string; readonly message: string } | undefined;
}

export class Sagas {
  /** The state of each order when it was just placed. */
  readonly starts: readonly number[];
  readonly stockStart: number;
  readonly #options: SagaOptions;
  readonly #values = new Values();
  readonly #states: SagaStates;
  readonly #transactions: Transactions;
  readonly #gateway: GatewaySteps;
  readonly #known = new Map<number, Steps>();

  constructor(options: SagaOptions) {
    this.#options = options;
    this.#states = new SagaStates(this.#values, options.orders);
    this.#transactions = new Transactions(options.domains, this.#values);
    this.#gateway = new GatewaySteps(options, this.#values, this.#states, this.#transactions);
    this.starts = options.orders.map((placed, index) => this.#place(placed, index));
    this.stockStart = this.#values.stocks.idOf(options.stock);
  }

  /** Everything that can happen to an order in that state with that stock. */
  stepsOf(order: number, stock: number): Steps {
    if (stock >= stocksMax) throw new Error(`There are more than ${stocksMax} different stocks.`);
    const key = order * stocksMax + stock;
    let steps = this.#known.get(key);
    if (steps === undefined) {
      steps = this.#findSteps(order, stock);
      this.#known.set(key, steps);
    }
    return steps;
  }

  /** The order's row in one service. */
  rowOf<Name extends ServiceName>(order: number, service: Name): Rows[Name] {
    return this.#states.rowOf(this.#states.stateOf(order), service);
  }

  stockOf(stock: number): StockLevels {
    return this.#values.stocks.valueOf(stock);
  }

  #place(placed: OrderPlaced, index: number): number {
    const { rows, accounts, summaries, messages } = this.#values;
    const initial = initialRows(this.#options.domains, placed.orderId);
    const state = {
      index,
      account: accounts.idOf(emptyAccount),
      events: summaries.idOf(noEvents),
      calls: [],
      services: byService((name) => ({ row: rows[name].idOf(initial[name]), outbox: [], unread: [], handled: [] })),
    };
    return this.#states.idOf(this.#transactions.publish("order", state, [messages.idOf(placed)]));
  }

  #findSteps(order: number, stock: number): Steps {
    const state = this.#states.stateOf(order);
    const steps: Step[] = [];
    let broken: Steps["broken"];
    for (const { label, isProgress, take } of this.#candidates({ state, stock })) {
      try {
        const after = take();
        const id = after.state === state ? order : this.#states.idOf(after.state);
        steps.push({ label, isProgress, order: id, stock: after.stock });
      } catch (error) {
        broken ??= { label, message: describeProblem(error) };
      }
    }
    const isEnd = broken === undefined && state.calls.length === 0 && !steps.some((step) => step.isProgress);
    if (isEnd) {
      try {
        checkEnd(this.#states.snapshotOf(state));
      } catch (error) {
        broken = { label: "nothing is left to do", message: describeProblem(error) };
      }
    }
    return { steps, isEnd, broken };
  }

  *#candidates(situation: Situation): Iterable<Candidate> {
    const { inboxes, commands } = this.#options;
    yield* deliverySteps(situation, inboxes, this.#values, this.#transactions);
    yield* commandSteps(situation, commands[situation.state.index] ?? [], this.#values, this.#transactions);
    yield* this.#gateway.stepsOf(situation);
  }
}
