/**
 * The services' transactions on interned states. `decide` is pure, so each decision is computed once and remembered;
 * before it is remembered it is computed twice, and the results must be equal.
 */
import type { SagaEvent, ServiceName } from "../../../proto/event-table.ts";
import { byService } from "../../../services/stack/services.ts";
import { addEvent } from "../world/event-summary.ts";
import { type Domains, serviceModels } from "../world/services.ts";
import { Violation } from "../world/violation.ts";
import type { Situation } from "./candidate.ts";
import { canonical } from "./interner.ts";
import { Memo } from "./memo.ts";
import type { SagaState, ServiceState, Values } from "./saga-state.ts";

/** More than any exploration reaches. A number and a stock fit into one whole number. */
export const stocksMax = 65_536;

/** What a service commits for one message, as interned values. */
interface Decision {
  readonly row: number;
  readonly published: readonly number[];
  readonly stock: number;
}

export class Transactions {
  readonly #domains: Domains;
  readonly #values: Values;
  readonly #decisions = byService(() => new Memo<Decision>());
  readonly #summaries = new Memo<number>();

  constructor(domains: Domains, values: Values) {
    this.#domains = domains;
    this.#values = values;
  }

  /** What follows when the service handles the message. @throws Violation if that breaks a promise. */
  handle(service: ServiceName, { state, stock }: Situation, message: number): Situation {
    const { row } = state.services[service];
    const decision = this.#decisions[service].get(row * stocksMax + stock, message, () =>
      this.#decideTwice(service, row, stock, message),
    );
    const changed = decision.row === row ? state : withService(state, service, { row: decision.row });
    return { state: this.publish(service, changed, decision.published), stock: decision.stock };
  }

  /** The state once the events are in the service's outbox. */
  publish(service: ServiceName, state: SagaState, published: readonly number[]): SagaState {
    if (published.length === 0) return state;
    let { events } = state;
    for (const event of published) {
      const before = events;
      events = this.#summaries.get(before, event, () => this.#addEvent(before, event));
    }
    const outbox = [...state.services[service].outbox, ...published];
    return withService({ ...state, events }, service, { outbox });
  }

  #addEvent(summary: number, event: number): number {
    const { summaries, messages } = this.#values;
    return summaries.idOf(addEvent(summaries.valueOf(summary), messages.valueOf(event) as SagaEvent));
  }

  #decideTwice(service: ServiceName, row: number, stock: number, message: number): Decision {
    const decision = this.#decide(service, row, stock, message);
    if (canonical(decision) !== canonical(this.#decide(service, row, stock, message))) {
      throw new Violation("the domain code decided differently when it was asked again");
    }
    return decision;
  }

  #decide(service: ServiceName, row: number, stock: number, message: number): Decision {
    const { rows, stocks, messages } = this.#values;
    const committed = serviceModels[service].commit(
      this.#domains[service],
      rows[service].valueOf(row),
      messages.valueOf(message),
      stocks.valueOf(stock),
    );
    return {
      row: rows[service].idOf(committed.after),
      published: committed.published.map((event) => messages.idOf(event)),
      stock: stocks.idOf(committed.stock),
    };
  }
}

/** The state with some fields of one service's part changed. */
export function withService(state: SagaState, service: ServiceName, change: Partial<ServiceState>): SagaState {
  return { ...state, services: { ...state.services, [service]: { ...state.services[service], ...change } } };
}
