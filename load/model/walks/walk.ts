/**
 * One random walk through the system: twenty orders over few SKUs, batches, several consumers, and faults.
 *
 * The explorer covers every state of one or two orders, and for that it leaves out how records travel. A walk is the
 * opposite: it takes one random path, but with outboxes in order, a topic of partitions, offsets committed after the
 * transaction, and inboxes. First comes a storm, in which anything can happen, faults included. Then the faults end, and
 * the system must come to rest with every order finished. Every random choice comes from the seed, so a walk that
 * breaks a promise can be repeated.
 */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { OrderPlaced } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import type { StockLevels } from "../../../services/inventory/domain.ts";
import { serviceNames } from "../../../services/stack/services.ts";
import { createRandom, type Random } from "../random.ts";
import { checkEnd, outcomeOf } from "../world/promises.ts";
import { placedOrder, stockOf } from "../world/samples.ts";
import { type Domains, realDomains } from "../world/services.ts";
import { describeProblem, Violation } from "../world/violation.ts";
import { Consumers } from "./consumers.ts";
import { Faults } from "./faults.ts";
import { Journal } from "./journal.ts";
import { Orders } from "./orders.ts";
import { PaymentWorkers } from "./payment-workers.ts";
import { Relay } from "./relay.ts";
import type { Topic } from "./topic.ts";

/** What happened in a walk. */
export interface WalkResult {
  readonly seed: number;
  readonly steps: number;
  /** The number of orders by outcome: COMPLETED, or the reason why they FAILED. */
  readonly outcomes: ReadonlyMap<string, number>;
  /** The number of faults by kind. */
  readonly faults: ReadonlyMap<string, number>;
  /** The first broken promise, if there is one. */
  readonly broken: string | undefined;
  /** The last steps, if the walk was traced. */
  readonly trace: readonly string[];
}

const ordersMax = 20;
const partitions = 4;
const stormSteps = 1_200;
/** Far more than twenty orders need. A walk that takes more rounds would never end. */
const roundsMax = 500;

/** Walks once. The same seed gives the same walk, traced or not. */
export function walk(seed: number, options: { readonly domains?: Domains; readonly trace?: boolean } = {}): WalkResult {
  const journal = new Journal(options.trace === true);
  const system = new System(createRandom(seed), options.domains ?? realDomains, journal);
  let broken: string | undefined;
  try {
    for (let step = 0; step < stormSteps; step++) system.storm();
    system.heal();
    for (const order of system.orders.all) checkEnd(order);
  } catch (error) {
    broken = describeProblem(error);
  }
  const outcomes = new Map<string, number>();
  for (const { rows } of system.orders.all) {
    const outcome = outcomeOf(rows.order);
    if (outcome !== undefined) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  const { steps, faults, trace } = journal;
  return { seed, steps, outcomes, faults, broken, trace };
}

/** All parts of the system, and the order in which they act. */
class System {
  readonly orders: Orders;
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #relay: Relay;
  readonly #consumers: Consumers;
  readonly #workers: PaymentWorkers;
  /** Orders that no client has placed yet. */
  readonly #waiting: OrderPlaced[];
  /** What can happen in the storm, each with its probability in percent. They add up to 100. */
  readonly #actions: readonly (readonly [percent: number, action: (service: ServiceName) => void])[] = [
    [6, () => this.#place()],
    [19, (service) => this.#relay.sendBatch(service)],
    [20, (service) => this.#consumers.fetch(service, this.#random.below(partitions))],
    [20, () => this.#consumers.handleAny()],
    [8, () => this.#workers.claim(this.#workers.anyWorker())],
    [9, () => this.#workers.arriveAny()],
    [8, () => this.#workers.recordAnswers(this.#workers.anyWorker())],
    [3, () => this.#workers.disturbAny()],
    [2, () => this.#workers.expireLeases()],
    [1, () => this.#command()],
    [1, () => this.#relay.thaw()],
    [1, (service) => this.#consumers.rebalance(service, this.#random.below(partitions))],
    [1, () => this.#workers.kill(this.#workers.anyWorker())],
    [1, (service) => this.#random.chance(15) && this.#consumers.emptyInbox(service)],
  ];

  constructor(random: Random, domains: Domains, journal: Journal) {
    const stock = randomStock(random);
    this.#waiting = randomOrders(random, [...stock.keys()]);
    const topic: Topic = Array.from({ length: partitions }, () => []);
    this.#random = random;
    this.#faults = new Faults(random, journal);
    this.#relay = new Relay(topic, random, this.#faults, journal);
    this.orders = new Orders(domains, stock, this.#relay, journal);
    this.#consumers = new Consumers(topic, this.orders, random, this.#faults, journal);
    this.#workers = new PaymentWorkers(this.orders, random, journal);
  }
  /** One random action. */
  storm(): void {
    const service = this.#random.pick(serviceNames);
    let dice = this.#random.below(100);
    for (const [percent, action] of this.#actions) {
      if (dice < percent) {
        action(service);
        return;
      }
      dice -= percent;
    }
  }

  /** Ends the faults and lets every part work until nothing is left to do. @throws Violation if that never happens. */
  heal(): void {
    this.#faults.end();
    for (let round = 0; !this.#isAtRest(); round++) {
      if (round > roundsMax) throw new Violation("I4: the faults have ended, but the system does not come to rest");
      this.#place();
      this.#relay.thaw();
      for (const service of serviceNames) {
        this.#relay.sendBatch(service);
        this.#consumers.fetchAll(service);
      }
      this.#consumers.handleAll();
      this.#workers.catchUp();
    }
  }

  #isAtRest(): boolean {
    return this.#waiting.length === 0 && this.#relay.isDrained && this.#consumers.isCaughtUp && this.#workers.isIdle;
  }

  #place(): void {
    const placed = this.#waiting.shift();
    if (placed !== undefined) this.orders.place(placed);
  }

  #command(): void {
    const { length } = this.orders.all;
    if (length === 0) return;
    const $typeName = this.#random.pick(["CancelOrder", "TimeOutOrder"] as const);
    this.orders.command(this.#random.below(length), { $typeName });
  }
}

function randomStock(random: Random): StockLevels {
  return stockOf({
    "sku-a": 10 + random.below(20),
    "sku-b": 5 + random.below(20),
    "sku-c": random.below(20),
    "sku-rare": 1,
  });
}

function randomOrders(random: Random, skus: readonly string[]): OrderPlaced[] {
  return Array.from({ length: ordersMax }, (_, number) => {
    const chosen = skus.filter((sku) => random.chance(sku === "sku-rare" ? 15 : 40));
    const lines = (chosen.length === 0 ? [random.pick(skus)] : chosen).map((sku) => ({
      sku,
      quantity: sku === "sku-rare" ? 1 : 1 + random.below(3),
    }));
    return placedOrder(number, lines);
  });
}
