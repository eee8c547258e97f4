/**
 * The state of one order's saga: the order's row in each service, its events on their way from outbox to consumer, its
 * calls to the payment gateway and the gateway's account. Every number below stands for an interned value.
 */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { OrderPlaced } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import type { StockLevels } from "../../../services/inventory/domain.ts";
import type { GatewayCall, GatewayOutcome } from "../../../services/payment/domain.ts";
import { byService, serviceNames } from "../../../services/stack/services.ts";
import type { EventSummary } from "../world/event-summary.ts";
import type { Account } from "../world/gateway.ts";
import { checkOrder, type OrderSnapshot } from "../world/promises.ts";
import type { Incoming, PerService, Row, Rows } from "../world/services.ts";
import { createInterner } from "./interner.ts";

/** A call to the gateway that is in flight. */
export type Call =
  /** Sent; the gateway has not received it yet. */
  | { readonly stage: "SENT"; readonly call: GatewayCall }
  /** Sent, and its worker no longer waits for the answer: it timed out or died. */
  | { readonly stage: "ABANDONED"; readonly call: GatewayCall }
  /** The gateway has answered; the worker has not recorded the answer yet. */
  | { readonly stage: "ANSWERED"; readonly call: GatewayCall; readonly outcome: GatewayOutcome };

/** One service's part of the state. */
export interface ServiceState {
  readonly row: number;
  /** Events that are committed and not yet sent, oldest first. */
  readonly outbox: readonly number[];
  /** Events on the topic that the service handles and has not read yet, oldest first. */
  readonly unread: readonly number[];
  /** Events that the service has handled, in ascending order. Kept only if its inbox forgets them. */
  readonly handled: readonly number[];
}

export interface SagaState {
  /** Which of the explored orders this is. */
  readonly index: number;
  readonly account: number;
  /** The summary of the events published so far. */
  readonly events: number;
  /** Calls in flight, in ascending order. */
  readonly calls: readonly number[];
  readonly services: PerService<ServiceState>;
}

/** The numbers with one more, in ascending order: how they came about makes no difference to a state. */
export function added(ids: readonly number[], id: number): readonly number[] {
  return [...ids, id].sort((a, b) => a - b);
}

/** The interned values that states are made of. */
export class Values {
  readonly rows = byService(() => createInterner<Row>());
  readonly accounts = createInterner<Account>();
  readonly summaries = createInterner<EventSummary>();
  readonly messages = createInterner<Incoming>();
  readonly calls = createInterner<Call>();
  readonly stocks = createInterner<StockLevels>();
}

/** Numbers the states of sagas, and checks each new one. */
export class SagaStates {
  readonly #values: Values;
  readonly #orders: readonly OrderPlaced[];
  readonly #states: SagaState[] = [];
  readonly #ids = new Map<string, number>();
  /** Many states differ only in messages and calls in flight, which {@link checkOrder} does not look at. */
  readonly #checked = new Set<string>();

  constructor(values: Values, orders: readonly OrderPlaced[]) {
    this.#values = values;
    this.#orders = orders;
  }

  /** The number of the state. @throws Violation if the state is new and breaks a promise. */
  idOf(state: SagaState): number {
    const { index, account, events, calls, services } = state;
    let rows = `${index};${account};${events}`;
    for (const name of serviceNames) rows += `;${services[name].row}`;
    let key = `${rows};${calls}`;
    for (const name of serviceNames) {
      const { outbox, unread, handled } = services[name];
      key += `;${outbox};${unread};${handled}`;
    }
    let id = this.#ids.get(key);
    if (id === undefined) {
      if (!this.#checked.has(rows)) checkOrder(this.snapshotOf(state));
      this.#checked.add(rows);
      id = this.#states.length;
      this.#ids.set(key, id);
      this.#states.push(state);
    }
    return id;
  }

  stateOf(id: number): SagaState {
    const state = this.#states[id];
    if (state === undefined) throw new Error(`There is no state ${id}.`);
    return state;
  }

  placedOf({ index }: SagaState): OrderPlaced {
    const placed = this.#orders[index];
    if (placed === undefined) throw new Error(`There is no order ${index}.`);
    return placed;
  }

  rowOf<Name extends ServiceName>({ services }: SagaState, service: Name): Rows[Name] {
    return this.#values.rows[service].valueOf(services[service].row) as Rows[Name];
  }

  snapshotOf(state: SagaState): OrderSnapshot {
    return {
      placed: this.placedOf(state),
      rows: byService((service) => this.rowOf(state, service)) as Rows,
      account: this.#values.accounts.valueOf(state.account),
      events: this.#values.summaries.valueOf(state.events),
    };
  }
}
