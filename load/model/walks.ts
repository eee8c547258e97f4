/**
 * One random walk: many orders over few SKUs, batches, two consumers a group, relays that send again, workers that die.
 * Where the exploration keeps only what decides, this moves records about as the real parts do: an outbox in order, a
 * topic of partitions, offsets that are committed after the transaction, inboxes. Everything random comes from the seed.
 */
import { eventTypesHandledBy, type SagaEvent } from "../../proto/event-table.ts";
import type { OrderPlaced } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { placedOrder, realDomains, stockOf } from "./configurations.ts";
import { createRandom } from "./random.ts";
import {
  type Account,
  callArrives,
  checkEnd,
  checkOrder,
  checkStock,
  commitOrder,
  commitPayment,
  commitReservation,
  type Domains,
  describeError,
  emptyAccount,
  type GatewayCall,
  type GatewayOutcome,
  type InventoryMessage,
  nothingTold,
  type OrderMessage,
  type OrderState,
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

/** What a walk came to. */
export interface Simulation {
  readonly seed: number;
  readonly steps: number;
  /** By COMPLETED, or why it FAILED. */
  readonly endings: ReadonlyMap<string, number>;
  /** What hit the walk, by kind: the witness that it was not a walk in the park. */
  readonly faults: ReadonlyMap<string, number>;
  readonly broken: string | undefined;
  /** Its last steps, where they were asked for. */
  readonly trace: readonly string[];
}

const ordersMax = 20;
const partitions = 4;
const batchMax = 8;
const stormSteps = 1_200;
/** Far more than twenty orders take: more means that there is no end. */
const healingRoundsMax = 500;
const traceMax = 60;

type Service = (typeof serviceNames)[number];

/** An event with the id that it keeps however often it is sent. */
interface Record {
  readonly id: string;
  readonly index: number;
  readonly event: SagaEvent;
}

/** A consumer group's place in one partition. */
interface Place {
  committed: number;
  position: number;
  /** Grows with every rebalance: who still holds a batch of an older one has lost the partition. */
  generation: number;
}

/** Records that a consumer has fetched, and not handled yet. */
interface Fetched {
  readonly service: Service;
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  readonly generation: number;
}

/** A call to the gateway that is under way. */
interface Call {
  readonly index: number;
  readonly call: GatewayCall;
  /** Undefined: nobody waits for the answer any more. */
  worker: number | undefined;
  outcome: GatewayOutcome | undefined;
}

interface Order {
  readonly placed: OrderPlaced;
  order: OrderState;
  reservation: Reservation;
  payment: PaymentState;
  account: Account;
  told: Told;
  /** Claimed by a worker, and its lease not over. */
  isLeased: boolean;
}

const handledBy = new Map(serviceNames.map((name) => [name, eventTypesHandledBy(name)] as const));

/** Walks once. The walk is the same for the same seed; `trace` only writes it down. */
export function simulate(
  seed: number,
  options: { readonly domains?: Domains; readonly trace?: boolean } = {},
): Simulation {
  const { domains = realDomains } = options;
  const random = createRandom(seed);
  const initialStock = stockOf({
    "sku-a": 10 + random.below(20),
    "sku-b": 5 + random.below(20),
    "sku-c": random.below(20),
    "sku-rare": 1,
  });
  const skus = [...initialStock.keys()];
  const waiting = Array.from({ length: ordersMax }, (_, number) => {
    const chosen = skus.filter((sku) => random.chance(sku === "sku-rare" ? 15 : 40));
    const lines = (chosen.length === 0 ? [random.pick(skus)] : chosen).map((sku) => ({
      sku,
      quantity: sku === "sku-rare" ? 1 : 1 + random.below(3),
    }));
    return placedOrder(number, lines);
  });

  const orders: Order[] = [];
  let stock: StockLevels = initialStock;
  const topic: Record[][] = Array.from({ length: partitions }, () => []);
  const outboxes = perService((): Record[] => []);
  const inboxes = perService(() => new Set<string>());
  const places = perService(() => topic.map((): Place => ({ committed: 0, position: 0, generation: 0 })));
  /** What a frozen owner of an outbox had read, and may still send once. */
  const frozen: Record[][] = [];
  const fetched: Fetched[] = [];
  const calls: Call[] = [];
  const keyOwners = new Map<string, string>();
  const faults = new Map<string, number>();
  const trace: string[] = [];
  let steps = 0;
  let eventsMade = 0;

  function say(text: () => string): void {
    steps++;
    if (options.trace !== true) return;
    trace.push(text());
    if (trace.length > traceMax) trace.shift();
  }

  function suffer(fault: string): void {
    faults.set(fault, (faults.get(fault) ?? 0) + 1);
    say(() => fault);
  }

  function orderOf(index: number): Order {
    const order = orders[index];
    if (order === undefined) throw new Error(`There is no order ${index}.`);
    return order;
  }

  function publish(service: Service, index: number, published: readonly SagaEvent[]): void {
    const order = orderOf(index);
    for (const event of published) {
      order.told = tell(order.told, event);
      outboxes[service].push({ id: `event-${eventsMade++}`, index, event });
    }
  }

  function place(): void {
    const placed = waiting.shift();
    if (placed === undefined) return;
    const { orderId } = placed;
    const index = orders.length;
    orders.push({
      placed,
      order: { orderId, version: 1, status: "PENDING" },
      reservation: domains.inventory.noReservation(orderId),
      payment: domains.payment.noPayment(orderId),
      account: emptyAccount,
      told: nothingTold,
      isLeased: false,
    });
    publish("order", index, [placed]);
    say(() => `${orderId} is placed: ${placed.lines.map(({ sku, quantity }) => `${quantity} ${sku}`).join(", ")}`);
  }

  function command(index: number, message: OrderMessage): void {
    const order = orderOf(index);
    const { after, published } = commitOrder(domains.order, order.order, message);
    order.order = after;
    publish("order", index, published);
    say(() => `${order.placed.orderId}: ${message.$typeName}, now ${after.status}`);
    checkOrder(order);
  }

  function send(records: readonly Record[]): void {
    for (const record of records) topic[record.index % partitions]?.push(record);
  }

  /** The relay's owner of one outbox: reads a batch in order, sends it, marks it. */
  function relay(service: Service, isStormy: boolean): void {
    const outbox = outboxes[service];
    if (outbox.length === 0) return;
    const batch = outbox.slice(0, 1 + random.below(batchMax));
    if (isStormy && random.chance(8)) {
      frozen.push(batch);
      suffer("relay frozen with a batch");
      return;
    }
    send(batch);
    say(() => `the relay sends ${batch.length} of ${service}`);
    if (isStormy && random.chance(10)) suffer("relay died between send and mark");
    else outbox.splice(0, batch.length);
  }

  function thaw(): void {
    const [batch] = frozen.splice(random.below(frozen.length), 1);
    if (batch === undefined) return;
    send(batch);
    say(() => `a relay that was frozen sends ${batch.map(({ id }) => id).join(", ")}`);
  }

  /** The partition goes to the other consumer. Returns whether the first one had fetched more than is committed. */
  function rebalance(service: Service, partition: number): boolean {
    const at = places[service][partition];
    if (at === undefined) return false;
    const { committed, position } = at;
    at.generation++;
    at.position = committed;
    return position > committed;
  }

  function fetch(service: Service, partition: number): void {
    const at = places[service][partition];
    const end = topic[partition]?.length ?? 0;
    if (at === undefined || at.position >= end) return;
    // A consumer handles one batch of a partition at a time.
    const isBusy = fetched.some(
      (it) => it.service === service && it.partition === partition && it.generation === at.generation,
    );
    if (isBusy) return;
    const to = Math.min(end, at.position + 1 + random.below(batchMax));
    fetched.push({ service, partition, from: at.position, to, generation: at.generation });
    at.position = to;
  }

  /** One consumer's transaction, then its offset. */
  function handle(batch: Fetched, isStormy: boolean): void {
    fetched.splice(fetched.indexOf(batch), 1);
    const { service, partition, from, to } = batch;
    if (isStormy && random.chance(5)) {
      suffer("consumer died before its commit");
      rebalance(service, partition);
      return;
    }
    const inbox = inboxes[service];
    const fresh: Record[] = [];
    for (const record of topic[partition]?.slice(from, to) ?? []) {
      if (handledBy.get(service)?.has(record.event.$typeName) !== true) continue;
      if (inbox.has(record.id)) continue;
      inbox.add(record.id);
      fresh.push(record);
    }
    say(() => `${service} handles ${from}–${to} of partition ${partition}: ${namesOf(fresh)}`);
    if (service === "inventory") handleInventory(fresh);
    else for (const { index, event } of fresh) handleOne(service, index, event);
    for (const { index } of fresh) checkOrder(orderOf(index));

    const at = places[service][partition];
    if (at === undefined || batch.generation !== at.generation) {
      suffer("batch handled by a consumer that had lost the partition");
    } else if (isStormy && random.chance(8)) {
      suffer("consumer died between commit and offset");
      rebalance(service, partition);
    } else {
      at.committed = to;
    }
  }

  function namesOf(records: readonly Record[]): string {
    return records.map(({ index, event }) => `${shortName(event)} of order-${index}`).join(", ") || "nothing new";
  }

  function handleOne(service: "order" | "payment", index: number, event: SagaEvent): void {
    const order = orderOf(index);
    if (service === "payment") {
      tellPayment(index, event as PaymentMessage);
      return;
    }
    const { after, published } = commitOrder(domains.order, order.order, event as OrderMessage);
    order.order = after;
    publish("order", index, published);
  }

  function tellPayment(index: number, message: PaymentMessage): void {
    const order = orderOf(index);
    const keyBefore = domains.payment.nextCall(order.payment)?.idempotencyKey;
    const { after, published } = commitPayment(domains.payment, order.payment, message);
    order.payment = after;
    // A call that is wanted from now on is due at once, whatever is under way.
    if (domains.payment.nextCall(after)?.idempotencyKey !== keyBefore) order.isLeased = false;
    publish("payment", index, published);
  }

  /** As the handler does: the SKUs are read once for the whole batch, before anything is decided. */
  function handleInventory(records: readonly Record[]): void {
    const messages = records.map(({ index, event }) => ({ index, message: event as InventoryMessage }));
    const touched = new Set(
      messages.flatMap(({ index, message }) => domains.inventory.skusTouchedBy(orderOf(index).reservation, message)),
    );
    let levels: StockLevels = new Map([...stock].filter(([sku]) => touched.has(sku)));
    for (const { index, message } of messages) {
      const order = orderOf(index);
      const committed = commitReservation(domains.inventory, order.reservation, levels, message);
      order.reservation = committed.after;
      levels = committed.stock;
      publish("inventory", index, committed.published);
    }
    stock = new Map([...stock, ...levels]);
    checkStock(
      initialStock,
      stock,
      orders.map(({ reservation }) => reservation),
    );
  }

  function emptyInbox(service: Service): void {
    if (inboxes[service].size === 0) return;
    inboxes[service].clear();
    for (const [partition, at] of places[service].entries()) {
      at.committed = 0;
      rebalance(service, partition);
    }
    suffer("inbox emptied, topic read again from its beginning");
  }

  function claim(worker: number): void {
    const due = orders.flatMap((order, index) => {
      const call = order.isLeased ? undefined : domains.payment.nextCall(order.payment);
      return call === undefined ? [] : [{ index, call }];
    });
    for (const { index, call } of due.slice(0, 1 + random.below(batchMax))) {
      const order = orderOf(index);
      const owner = keyOwners.get(call.idempotencyKey) ?? call.orderId;
      if (owner !== order.placed.orderId) throw new Violation("I3: a key of two orders");
      keyOwners.set(call.idempotencyKey, owner);
      order.isLeased = true;
      calls.push({ index, call, worker, outcome: undefined });
      say(() => `worker ${worker} claims the ${call.kind} of ${call.orderId}`);
    }
  }

  /** @param isRefused where it is a void. */
  function arrive(made: Call, isRefused: boolean): void {
    const order = orderOf(made.index);
    if (isRefused && made.call.kind === "void" && made.worker !== undefined) {
      made.outcome = voidRefused;
      suffer("void refused");
      return;
    }
    const { account, outcome } = callArrives(order.account, made.call, random.chance(75));
    order.account = account;
    if (made.worker === undefined) calls.splice(calls.indexOf(made), 1);
    else made.outcome = outcome;
    say(() => `the ${made.call.kind} of ${made.call.orderId} reaches the gateway: ${outcome.$typeName}`);
    checkOrder(order);
  }

  /** A worker's transaction for the answers that it has. */
  function recordAnswers(worker: number): void {
    const answered = calls.filter((it) => it.worker === worker && it.outcome !== undefined);
    for (const made of answered.slice(0, 1 + random.below(batchMax))) {
      calls.splice(calls.indexOf(made), 1);
      if (made.outcome === undefined) continue;
      const { outcome } = made;
      if (outcome.$typeName === "GatewayUnknown" || outcome === voidRefused) orderOf(made.index).isLeased = false;
      tellPayment(made.index, outcome);
      say(() => `worker ${worker} records ${outcome.$typeName} of ${made.call.orderId}`);
      checkOrder(orderOf(made.index));
    }
  }

  function loseCall(made: Call): void {
    if (made.worker === undefined) {
      calls.splice(calls.indexOf(made), 1);
      suffer("call lost");
    } else if (made.outcome === undefined) {
      made.worker = undefined;
      tellPayment(made.index, { $typeName: "GatewayUnknown" });
      orderOf(made.index).isLeased = false;
      suffer("call timed out, still under way");
      checkOrder(orderOf(made.index));
    } else {
      made.outcome = { $typeName: "GatewayUnknown" };
      suffer("answer lost");
    }
  }

  function killWorker(worker: number): void {
    const underWay = calls.filter((it) => it.worker === worker);
    for (const made of underWay) {
      if (made.outcome === undefined) made.worker = undefined;
      else calls.splice(calls.indexOf(made), 1);
    }
    if (underWay.length > 0) suffer("worker died with calls under way");
  }

  function storm(): void {
    const service = random.pick(serviceNames);
    const dice = random.below(100);
    if (dice < 6) place();
    else if (dice < 25) relay(service, true);
    else if (dice < 45) fetch(service, random.below(partitions));
    else if (dice < 65) {
      if (fetched.length > 0) handle(random.pick(fetched), true);
    } else if (dice < 73) claim(random.below(2));
    else if (dice < 82) {
      const asked = calls.filter(({ outcome }) => outcome === undefined);
      if (asked.length > 0) arrive(random.pick(asked), random.chance(20));
    } else if (dice < 90) recordAnswers(random.below(2));
    else if (dice < 93) {
      if (calls.length > 0) loseCall(random.pick(calls));
    } else if (dice < 95) {
      for (const order of orders) order.isLeased = false;
      say(() => "the leases are over");
    } else if (dice < 96) {
      if (orders.length > 0) {
        const $typeName = random.pick(["CancelOrder", "TimeOutOrder"] as const);
        command(random.below(orders.length), { $typeName });
      }
    } else if (dice < 97) {
      if (frozen.length > 0) thaw();
    } else if (dice < 98) {
      if (rebalance(service, random.below(partitions))) suffer("rebalance in mid-batch");
    } else if (dice < 99) killWorker(random.below(2));
    else if (random.chance(15)) emptyInbox(service);
  }

  function isQuiet(): boolean {
    return (
      waiting.length + frozen.length + fetched.length + calls.length === 0 &&
      serviceNames.every((name) => outboxes[name].length === 0) &&
      serviceNames.every((name) => places[name].every((at, partition) => at.committed === topic[partition]?.length)) &&
      orders.every(({ payment }) => domains.payment.nextCall(payment) === undefined)
    );
  }

  /** Everything is back, and goes on until nothing is left to do. */
  function heal(): void {
    for (let round = 0; !isQuiet(); round++) {
      if (round > healingRoundsMax) throw new Violation("I4: everything is back, and it does not come to an end");
      place();
      if (frozen.length > 0) thaw();
      for (const service of serviceNames) {
        relay(service, false);
        for (let partition = 0; partition < partitions; partition++) fetch(service, partition);
      }
      for (const batch of [...fetched]) handle(batch, false);
      for (const order of orders)
        order.isLeased = calls.some((it) => it.worker !== undefined && orders[it.index] === order);
      claim(0);
      for (const made of calls.filter(({ outcome }) => outcome === undefined)) {
        if (made.worker === undefined && random.chance(50)) calls.splice(calls.indexOf(made), 1);
        else arrive(made, false);
      }
      recordAnswers(0);
      recordAnswers(1);
    }
  }

  let broken: string | undefined;
  try {
    for (let step = 0; step < stormSteps; step++) storm();
    heal();
    for (const order of orders) checkEnd(order);
  } catch (error) {
    broken = describeError(error);
  }
  const endings = new Map<string, number>();
  for (const { order } of orders) {
    const ending = order.status === "FAILED" ? order.failureReason : order.status;
    endings.set(ending, (endings.get(ending) ?? 0) + 1);
  }
  return { seed, steps, endings, faults, broken, trace };
}

function perService<Value>(make: () => Value): { readonly [Name in Service]: Value } {
  return { order: make(), inventory: make(), payment: make() };
}
