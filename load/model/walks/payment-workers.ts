/** Payment's workers, and their calls to the gateway. */
import type { GatewayCall, GatewayOutcome } from "../../../services/payment/domain.ts";
import type { Random } from "../random.ts";
import { answer, IdempotencyKeys, voidRefused } from "../world/gateway.ts";
import { checkOrder } from "../world/promises.ts";
import type { Journal } from "./journal.ts";
import type { Orders } from "./orders.ts";
import { batchMax } from "./topic.ts";

/** A call to the gateway that is in flight. */
interface CallInFlight {
  readonly index: number;
  readonly call: GatewayCall;
  /** Undefined once no worker waits for the answer: the call timed out, or its worker died. */
  worker: number | undefined;
  /** Undefined until the gateway has answered. */
  outcome: GatewayOutcome | undefined;
}

const workers = 2;

export class PaymentWorkers {
  readonly #orders: Orders;
  readonly #random: Random;
  readonly #journal: Journal;
  readonly #keys = new IdempotencyKeys();
  readonly #calls: CallInFlight[] = [];

  constructor(orders: Orders, random: Random, journal: Journal) {
    this.#orders = orders;
    this.#random = random;
    this.#journal = journal;
  }

  /** No call is in flight, and no payment wants one. */
  get isIdle(): boolean {
    return this.#calls.length === 0 && this.#orders.all.every((order) => this.#orders.nextCall(order) === undefined);
  }

  anyWorker(): number {
    return this.#random.below(workers);
  }

  /** A worker claims some of the calls that are due, and makes them. */
  claim(worker: number): void {
    const due = this.#orders.all.flatMap((order, index) => {
      const call = order.isLeased ? undefined : this.#orders.nextCall(order);
      return call === undefined ? [] : [{ order, index, call }];
    });
    for (const { order, index, call } of due.slice(0, 1 + this.#random.below(batchMax))) {
      this.#keys.claim(call, order.placed.orderId);
      order.isLeased = true;
      this.#calls.push({ index, call, worker, outcome: undefined });
      this.#journal.step(() => `worker ${worker} claims the ${call.kind} of ${call.orderId}`);
    }
  }

  /** One of the calls reaches the gateway. */
  arriveAny(): void {
    const sent = this.#calls.filter(({ outcome }) => outcome === undefined);
    if (sent.length === 0) return;
    const made = this.#random.pick(sent);
    const isRefused = this.#random.chance(20);
    if (isRefused && made.call.kind === "void" && made.worker !== undefined) {
      made.outcome = voidRefused;
      this.#journal.fault("void refused");
    } else {
      this.#arrive(made);
    }
  }

  /** A worker records some of the answers that it has received. */
  recordAnswers(worker: number): void {
    const answered = this.#calls.filter((it) => it.worker === worker && it.outcome !== undefined);
    for (const made of answered.slice(0, 1 + this.#random.below(batchMax))) {
      this.#remove(made);
      const { index, call, outcome } = made;
      if (outcome === undefined) continue;
      const order = this.#orders.at(index);
      // Nothing is settled, so the call is made again.
      if (outcome.$typeName === "GatewayUnknown" || outcome === voidRefused) order.isLeased = false;
      this.#orders.handle("payment", index, outcome);
      this.#journal.step(() => `worker ${worker} records ${outcome.$typeName} of ${call.orderId}`);
      checkOrder(order);
    }
  }

  /** Something goes wrong with one of the calls, depending on how far it is. */
  disturbAny(): void {
    if (this.#calls.length === 0) return;
    const made = this.#random.pick(this.#calls);
    if (made.worker === undefined) {
      this.#remove(made);
      this.#journal.fault("call lost");
    } else if (made.outcome === undefined) {
      const order = this.#orders.at(made.index);
      made.worker = undefined;
      this.#orders.handle("payment", made.index, { $typeName: "GatewayUnknown" });
      order.isLeased = false;
      this.#journal.fault("call timed out but stayed in flight");
      checkOrder(order);
    } else {
      made.outcome = { $typeName: "GatewayUnknown" };
      this.#journal.fault("answer lost");
    }
  }

  kill(worker: number): void {
    const inFlight = this.#calls.filter((it) => it.worker === worker);
    for (const made of inFlight) {
      if (made.outcome === undefined) made.worker = undefined;
      else this.#remove(made);
    }
    if (inFlight.length > 0) this.#journal.fault("worker died with calls in flight");
  }

  expireLeases(): void {
    for (const order of this.#orders.all) order.isLeased = false;
    this.#journal.step(() => "the leases expire");
  }

  /** One round without faults: every call is claimed, arrives and is recorded. Abandoned calls may still be lost. */
  catchUp(): void {
    for (const order of this.#orders.all) {
      order.isLeased = this.#calls.some((it) => it.worker !== undefined && this.#orders.at(it.index) === order);
    }
    this.claim(0);
    for (const made of this.#calls.filter(({ outcome }) => outcome === undefined)) {
      if (made.worker === undefined && this.#random.chance(50)) this.#remove(made);
      else this.#arrive(made);
    }
    for (let worker = 0; worker < workers; worker++) this.recordAnswers(worker);
  }

  #arrive(made: CallInFlight): void {
    const order = this.#orders.at(made.index);
    const { account, outcome } = answer(order.account, made.call, this.#random.chance(75));
    order.account = account;
    if (made.worker === undefined) this.#remove(made);
    else made.outcome = outcome;
    this.#journal.step(() => `the ${made.call.kind} of ${made.call.orderId} reaches the gateway: ${outcome.$typeName}`);
    checkOrder(order);
  }

  #remove(made: CallInFlight): void {
    this.#calls.splice(this.#calls.indexOf(made), 1);
  }
}
