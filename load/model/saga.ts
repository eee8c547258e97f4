/**
 * Everything that can happen to one order, step by step: each service reads, commits and publishes at its own pace, and
 * calls to the gateway are under way for as long as they like.
 *
 * The topic. One order's events are one log that every service reads in order. What a service has still to read of it
 * decides what can happen, so the log is kept as each service's unread part, without the records that it skips.
 *
 * Repeats. A relay that sends an event again, a crash between commit and offset, a rebalance: all come to a service
 * reading an event again that it has handled before, any time later. Where the inbox has the event's id, that changes
 * nothing: a step to the same state. With `inboxes: "emptied"` nothing is remembered, and any event that a service
 * has handled is handled again at any moment and any number of times, in any order: more than a replay of the topic
 * could do. A crash before the commit changes nothing either.
 *
 * Calls to the gateway. The worker claims a call whenever one is wanted, also beside one that is under way (its lease is over, or
 * its process is frozen). A call that is given up on (time-out, or its process died) may still arrive, any time later,
 * or never. An answer may be lost, a void refused. At most `callsMax` calls of one order are under way at once; how many there are one
 * after the other has no limit.
 */
import { eventTypesHandledBy, type SagaEvent } from "../../proto/event-table.ts";
import type { OrderPlaced } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { unreachable } from "../../services/kit/errors.ts";
import { canonical, createInterner, type Interner } from "./interner.ts";
import {
  type Account,
  type Committed,
  callArrives,
  checkEnd,
  checkOrder,
  commitOrder,
  commitPayment,
  commitReservation,
  type Domains,
  describeError,
  emptyAccount,
  type GatewayCall,
  type GatewayOutcome,
  type InventoryMessage,
  isUndecided,
  nothingTold,
  type OrderCommand,
  type OrderMessage,
  type OrderState,
  type OrderWorld,
  type PaymentMessage,
  type PaymentState,
  type Reservation,
  type StockLevels,
  serviceNames,
  shortName,
  type Told,
  tell,
  Violation,
  voidRefused,
} from "./world.ts";

export interface SagaOptions {
  readonly domains: Domains;
  /** What each order asks for. */
  readonly orders: readonly OrderPlaced[];
  readonly stock: StockLevels;
  readonly inboxes: "kept" | "emptied";
  /** What may come to each order from outside, at any moment. */
  readonly commands: readonly (readonly OrderCommand["$typeName"][])[];
  /** Calls of one order that are under way at once. */
  readonly callsMax: number;
  /** Whether calls are given up, arrive late or never, answers are lost, and voids refused. */
  readonly areCallsLost: boolean;
}

/** One thing that can happen. */
export interface Step {
  readonly label: string;
  /** False for what the saga can do without: commands from outside, repeats, crashes. */
  readonly isProgress: boolean;
  /** Where it leads: the order's state, and the stock that the orders share. */
  readonly order: number;
  readonly stock: number;
}

/** All that can happen to an order in one state. */
export interface Steps {
  readonly steps: readonly Step[];
  /** Nothing is under way for the order. */
  readonly isEnd: boolean;
  /** The first promise that a step breaks; undefined where all hold. */
  readonly broken: { readonly label: string; readonly message: string } | undefined;
}

/** The sagas of some orders. Their states and the stock are numbers, equal where the states are. */
export interface Sagas {
  readonly starts: readonly number[];
  readonly stockStart: number;
  stepsOf(order: number, stock: number): Steps;
  reservationOf(order: number): Reservation;
  stockOf(stock: number): StockLevels;
  /** How an order that has ended ended: COMPLETED, or why it FAILED. */
  endingOf(order: number): string;
}

/** A call to the gateway that is under way. */
type Call =
  | { readonly stage: "ASKED"; readonly call: GatewayCall }
  /** Nobody waits for its answer any more. */
  | { readonly stage: "GIVEN_UP"; readonly call: GatewayCall }
  | { readonly stage: "ANSWERED"; readonly call: GatewayCall; readonly outcome: GatewayOutcome };

/** By service, in the order of `serviceNames`. */
type PerService<T> = readonly [T, T, T];

/** One order's state; every number is an interned value's. */
interface Local {
  readonly index: number;
  readonly order: number;
  readonly reservation: number;
  readonly payment: number;
  readonly account: number;
  readonly told: number;
  /** Committed, and not on the topic yet. */
  readonly outbox: PerService<readonly number[]>;
  /** On the topic, and not handled yet. */
  readonly unread: PerService<readonly number[]>;
  /** Handled, in ascending order; kept only where inboxes are emptied. */
  readonly read: PerService<readonly number[]>;
  /** In ascending order. */
  readonly calls: readonly number[];
}

/** What can come to a service. */
type Message = SagaEvent | OrderMessage | PaymentMessage;

/** A service's row after one message, and the events that it published. */
interface Decided {
  readonly after: number;
  readonly published: readonly number[];
}

/** The gateway's ledger after a call, and the call with its answer. */
interface Arrival {
  readonly account: number;
  readonly answered: number;
}

interface After {
  readonly local: Local;
  readonly stock: number;
}

type OwnStep = (label: string, isProgress: boolean, take: () => Local) => void;

/** More than any exploration has; keeps an order and a stock apart in one whole number. */
const stocksMax = 65_536;
const none: PerService<readonly number[]> = [[], [], []];
const [orderAt, inventoryAt, paymentAt] = [0, 1, 2];
const handledBy = serviceNames.map((name) => eventTypesHandledBy(name));

/** The sagas of the orders that `options` names, all of them just placed. */
export function createSagas(options: SagaOptions): Sagas {
  const { domains, inboxes, commands, callsMax, areCallsLost } = options;
  const orders = createInterner<OrderState>();
  const reservations = createInterner<Reservation>();
  const payments = createInterner<PaymentState>();
  const accounts = createInterner<Account>();
  const tolds = createInterner<Told>();
  const messages = createInterner<Message>();
  const calls = createInterner<Call>();
  const stocks = createInterner<StockLevels>();
  /** A reservation and the stock after one decision. */
  const inventories = createInterner<readonly [number, number]>();
  const orderDecisions = createMemory<Decided>();
  const inventoryDecisions = createMemory<Decided>();
  const paymentDecisions = createMemory<Decided>();
  const tellings = createMemory<number>();
  const arrivals = createMemory<Arrival>();
  const checked = new Set<string>();

  const locals: Local[] = [];
  const localIds = new Map<string, number>();
  const known = new Map<number, Steps>();
  /** Two orders' calls under one key would be one call to the gateway. */
  const keyOwners = new Map<string, string>();

  function idOf(local: Local): number {
    const { index, order, reservation, payment, account, told, outbox, unread, read, calls: made } = local;
    const world = `${index};${order};${reservation};${payment};${account};${told}`;
    const key = `${world};${outbox.join(";")};${unread.join(";")};${read.join(";")};${made}`;
    let id = localIds.get(key);
    if (id === undefined) {
      if (!checked.has(world)) checkOrder(worldOf(local));
      checked.add(world);
      id = locals.length;
      localIds.set(key, id);
      locals.push(local);
    }
    return id;
  }

  function localOf(id: number): Local {
    const local = locals[id];
    if (local === undefined) throw new Error(`There is no state ${id}.`);
    return local;
  }

  function placedOf(local: Local): OrderPlaced {
    const placed = options.orders[local.index];
    if (placed === undefined) throw new Error(`There is no order ${local.index}.`);
    return placed;
  }

  function worldOf(local: Local): OrderWorld {
    return {
      placed: placedOf(local),
      order: orders.valueOf(local.order),
      reservation: reservations.valueOf(local.reservation),
      payment: payments.valueOf(local.payment),
      account: accounts.valueOf(local.account),
      told: tolds.valueOf(local.told),
    };
  }

  /** The state once `published` is in the service's outbox. */
  function publish(local: Local, service: number, published: readonly number[]): Local {
    if (published.length === 0) return local;
    let { told } = local;
    for (const event of published) {
      const before = told;
      told = tellings.get(before, event, () =>
        tolds.idOf(tell(tolds.valueOf(before), messages.valueOf(event) as SagaEvent)),
      );
    }
    return { ...local, told, outbox: replace(local.outbox, service, (ids) => [...ids, ...published]) };
  }

  /** Purity is what lets a decision be remembered: the domain is asked twice, and has to say the same. */
  function decided<State>(states: Interner<State>, commit: () => Committed<State>): Decided {
    const ask = () => {
      const { after, published } = commit();
      return { after: states.idOf(after), published: published.map((event) => messages.idOf(event)) };
    };
    const first = ask();
    if (canonical(first) !== canonical(ask())) throw new Violation("a decision is not the same when asked again");
    return first;
  }

  function tellOrder(local: Local, message: number): Local {
    const { after, published } = orderDecisions.get(local.order, message, () =>
      decided(orders, () =>
        commitOrder(domains.order, orders.valueOf(local.order), messages.valueOf(message) as OrderMessage),
      ),
    );
    return publish(after === local.order ? local : { ...local, order: after }, orderAt, published);
  }

  function tellPayment(local: Local, message: number): Local {
    const { after, published } = paymentDecisions.get(local.payment, message, () =>
      decided(payments, () =>
        commitPayment(domains.payment, payments.valueOf(local.payment), messages.valueOf(message) as PaymentMessage),
      ),
    );
    return publish(after === local.payment ? local : { ...local, payment: after }, paymentAt, published);
  }

  function tellInventory(local: Local, stock: number, message: number): After {
    const { after, published } = inventoryDecisions.get(local.reservation * stocksMax + stock, message, () =>
      decided(inventories, () => {
        const committed = commitReservation(
          domains.inventory,
          reservations.valueOf(local.reservation),
          stocks.valueOf(stock),
          messages.valueOf(message) as InventoryMessage,
        );
        const inventory = [reservations.idOf(committed.after), stocks.idOf(committed.stock)] as const;
        return { after: inventory, published: committed.published };
      }),
    );
    const [reservation, stockAfter] = inventories.valueOf(after);
    const changed = reservation === local.reservation ? local : { ...local, reservation };
    return { local: publish(changed, inventoryAt, published), stock: stockAfter };
  }

  /** The state once the service has handled the event, with the stock after it. */
  function handle(local: Local, stock: number, service: number, event: number): After {
    switch (service) {
      case orderAt:
        return { local: tellOrder(local, event), stock };
      case inventoryAt:
        return tellInventory(local, stock, event);
      default:
        return { local: tellPayment(local, event), stock };
    }
  }

  function explore(id: number, stock: number): Steps {
    const local = localOf(id);
    const steps: Step[] = [];
    let broken: Steps["broken"];
    const step = (label: string, isProgress: boolean, take: () => After) => {
      try {
        const after = take();
        steps.push({ label, isProgress, order: after.local === local ? id : idOf(after.local), stock: after.stock });
      } catch (error) {
        broken ??= { label, message: describeError(error) };
      }
    };

    /** A step that leaves the stock as it is. */
    const ownStep: OwnStep = (label, isProgress, take) => step(label, isProgress, () => ({ local: take(), stock }));

    for (const [service, name] of serviceNames.entries()) {
      const [sent, ...rest] = local.outbox[service] ?? [];
      if (sent !== undefined) {
        const event = messages.valueOf(sent);
        ownStep(`the relay sends ${name}'s ${shortName(event)}`, true, () => ({
          ...local,
          outbox: replace(local.outbox, service, () => rest),
          unread: mapEach(local.unread, (ids, reader) =>
            handledBy[reader]?.has(event.$typeName) === true ? [...ids, sent] : ids,
          ),
        }));
      }
      const [next, ...later] = local.unread[service] ?? [];
      if (next !== undefined) {
        step(`${name} handles ${shortName(messages.valueOf(next))}`, true, () => {
          const read = inboxes === "kept" ? local.read : replace(local.read, service, (ids) => added(ids, next));
          const unread = replace(local.unread, service, () => later);
          return handle({ ...local, unread, read }, stock, service, next);
        });
      }
      for (const again of local.read[service] ?? []) {
        const label = `${name} handles ${shortName(messages.valueOf(again))} again`;
        step(label, false, () => handle(local, stock, service, again));
      }
    }
    for (const $typeName of commands[local.index] ?? []) {
      ownStep($typeName === "CancelOrder" ? "the client cancels" : "the deadline passes", false, () =>
        tellOrder(local, messages.idOf({ $typeName })),
      );
    }
    callSteps(local, ownStep);
    return { steps, isEnd: broken === undefined && isEnd(local, steps), broken };
  }

  function arrive(account: number, call: GatewayCall, accepts: boolean): Arrival {
    const asked = calls.idOf({ stage: "ASKED", call }) * 2 + (accepts ? 1 : 0);
    return arrivals.get(account, asked, () => {
      const after = callArrives(accounts.valueOf(account), call, accepts);
      return {
        account: accounts.idOf(after.account),
        answered: calls.idOf({ stage: "ANSWERED", call, outcome: after.outcome }),
      };
    });
  }

  function callSteps(local: Local, step: OwnStep): void {
    // Not asked twice: a key that is new each time is the gateway's to find out.
    const wanted = domains.payment.nextCall(payments.valueOf(local.payment));
    if (wanted !== undefined && local.calls.length < callsMax) {
      step(`payment's worker claims the ${wanted.kind}`, true, () => {
        const { orderId } = placedOf(local);
        const owner = keyOwners.get(wanted.idempotencyKey) ?? orderId;
        if (owner !== orderId || wanted.orderId !== orderId) throw new Violation("I3: a key of two orders");
        keyOwners.set(wanted.idempotencyKey, owner);
        return { ...local, calls: added(local.calls, calls.idOf({ stage: "ASKED", call: wanted })) };
      });
    }
    for (const [at, id] of local.calls.entries()) {
      const made = calls.valueOf(id);
      const { kind } = made.call;
      const others = local.calls.filter((_, other) => other !== at);
      const says = isUndecided(accounts.valueOf(local.account), made.call) ? [true, false] : [true];
      const bank = (accepts: boolean) =>
        says.length === 1 ? "" : accepts ? ", the bank accepts" : ", the bank declines";
      switch (made.stage) {
        case "ASKED": {
          const givenUp = added(others, calls.idOf({ stage: "GIVEN_UP", call: made.call }));
          for (const accepts of says) {
            step(`the ${kind} reaches the gateway${bank(accepts)}`, true, () => {
              const { account, answered } = arrive(local.account, made.call, accepts);
              return { ...local, account, calls: added(others, answered) };
            });
          }
          if (!areCallsLost) break;
          if (kind === "void") {
            step("the gateway refuses the void", false, () => {
              const answered = calls.idOf({ stage: "ANSWERED", call: made.call, outcome: voidRefused });
              return { ...local, calls: added(others, answered) };
            });
          }
          step(`the ${kind} times out, and is still under way`, false, () =>
            tellPayment({ ...local, calls: givenUp }, messages.idOf({ $typeName: "GatewayUnknown" })),
          );
          step(`the worker dies, and its ${kind} is still under way`, false, () => ({ ...local, calls: givenUp }));
          break;
        }
        case "GIVEN_UP":
          for (const accepts of says) {
            step(`the ${kind} that was given up reaches the gateway${bank(accepts)}`, true, () => ({
              ...local,
              account: arrive(local.account, made.call, accepts).account,
              calls: others,
            }));
          }
          step(`the ${kind} that was given up is lost`, true, () => ({ ...local, calls: others }));
          break;
        case "ANSWERED":
          step(`the worker records ${made.outcome.$typeName}`, true, () =>
            tellPayment({ ...local, calls: others }, messages.idOf(made.outcome)),
          );
          if (areCallsLost) step(`${made.outcome.$typeName} is lost`, false, () => ({ ...local, calls: others }));
          break;
        default:
          unreachable(made);
      }
    }
  }

  function isEnd(local: Local, steps: readonly Step[]): boolean {
    return !steps.some(({ isProgress }) => isProgress) && local.calls.length === 0;
  }

  return {
    starts: options.orders.map((placed, index) => {
      const { orderId } = placed;
      const start: Local = {
        index,
        order: orders.idOf({ orderId, version: 1, status: "PENDING" }),
        reservation: reservations.idOf(domains.inventory.noReservation(orderId)),
        payment: payments.idOf(domains.payment.noPayment(orderId)),
        account: accounts.idOf(emptyAccount),
        told: tolds.idOf(nothingTold),
        outbox: none,
        unread: none,
        read: none,
        calls: [],
      };
      return idOf(publish(start, orderAt, [messages.idOf(placed)]));
    }),
    stockStart: stocks.idOf(options.stock),
    stepsOf(order, stock) {
      if (stock >= stocksMax) throw new Error(`There are more than ${stocksMax} stocks.`);
      const key = order * stocksMax + stock;
      let steps = known.get(key);
      if (steps === undefined) {
        steps = explore(order, stock);
        if (steps.isEnd) {
          try {
            checkEnd(worldOf(localOf(order)));
          } catch (error) {
            steps = { ...steps, broken: { label: "nothing is under way any more", message: describeError(error) } };
          }
        }
        known.set(key, steps);
      }
      return steps;
    },
    reservationOf: (order) => reservations.valueOf(localOf(order).reservation),
    stockOf: (stock) => stocks.valueOf(stock),
    endingOf(order) {
      const state = orders.valueOf(localOf(order).order);
      return state.status === "FAILED" ? state.failureReason : state.status;
    },
  };
}

/** Remembers what was computed for two numbers, the second below a million. */
function createMemory<Value>() {
  const values = new Map<number, Value>();
  return {
    get(a: number, b: number, compute: () => Value): Value {
      const key = a * 1_048_576 + b;
      let value = values.get(key);
      if (value === undefined) {
        value = compute();
        values.set(key, value);
      }
      return value;
    },
  };
}

function added(ids: readonly number[], id: number): readonly number[] {
  return [...ids, id].sort((a, b) => a - b);
}

function replace<T>(all: PerService<T>, at: number, change: (value: T) => T): PerService<T> {
  return mapEach(all, (value, service) => (service === at ? change(value) : value));
}

function mapEach<T>([a, b, c]: PerService<T>, change: (value: T, service: number) => T): PerService<T> {
  return [change(a, 0), change(b, 1), change(c, 2)];
}
