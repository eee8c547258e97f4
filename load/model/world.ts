/**
 * The world around the three domains, as pure functions: what a service commits for one message, what the payment
 * gateway does with a call, and what has to be true of an order. Exploration and simulation share it; they differ in
 * how messages come to be delivered.
 */
import { fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { eventRegistry, type SagaEvent, type ServiceName } from "../../proto/event-table.ts";
import type { OrderPlaced } from "../../proto/gen/shop/order/v1/events_pb.ts";
import type { InventoryMessage, Line, Reservation, StockLevels } from "../../services/inventory/domain.ts";
import { messageOf, unreachable } from "../../services/kit/errors.ts";
import type { FailureReason, OrderMessage, OrderState } from "../../services/order/domain.ts";
import type { GatewayCall, GatewayOutcome, PaymentMessage, PaymentState } from "../../services/payment/domain.ts";

export type { OrderCommand } from "../../services/order/domain.ts";
export type {
  FailureReason,
  GatewayCall,
  GatewayOutcome,
  InventoryMessage,
  Line,
  OrderMessage,
  OrderState,
  PaymentMessage,
  PaymentState,
  Reservation,
  StockLevels,
};

type OrderDomain = typeof import("../../services/order/domain.ts");
type InventoryDomain = typeof import("../../services/inventory/domain.ts");
type PaymentDomain = typeof import("../../services/payment/domain.ts");

/** The code under examination: the real one, or a mutant of it. */
export interface Domains {
  readonly order: OrderDomain;
  readonly inventory: InventoryDomain;
  readonly payment: PaymentDomain;
}

/** A promise that does not hold, in words. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** What went wrong, in one line: a promise that does not hold, or code that throws. */
export function describeError(error: unknown): string {
  return error instanceof Violation ? error.message : `an exception: ${messageOf(error)}`;
}

function demand(condition: boolean, promise: string): asserts condition {
  if (!condition) throw new Violation(promise);
}

/** More than any order has to say: reaching it means that services answer each other without end. */
const eventsPerOrderMax = 16;

export const serviceNames = ["order", "inventory", "payment"] as const satisfies readonly ServiceName[];

/** The last part of a Protobuf full name: StockReserved of shop.inventory.v1.StockReserved. */
export function shortName(message: { readonly $typeName: string }): string {
  return message.$typeName.slice(message.$typeName.lastIndexOf(".") + 1);
}

/** What a service commits for one message: its row after it, and the events in its outbox. */
export interface Committed<State> {
  readonly after: State;
  readonly published: readonly SagaEvent[];
}

/** The event as its consumers get it: once through the wire format. */
function delivered(event: Message): SagaEvent {
  const schema = eventRegistry.getMessage(event.$typeName);
  if (schema === undefined) throw new Violation(`${event.$typeName} is not an event of the saga`);
  return fromBinary(schema, toBinary(schema, event)) as unknown as SagaEvent;
}

function publish<Fact>(
  orderId: string,
  facts: readonly Fact[],
  toEvent: (orderId: string, fact: Fact) => Message | undefined,
): readonly SagaEvent[] {
  return facts.flatMap((fact) => {
    const event = toEvent(orderId, fact);
    return event === undefined ? [] : [delivered(event)];
  });
}

/** Each reason has one cause. */
const reasonFor: Readonly<Partial<Record<OrderMessage["$typeName"], FailureReason>>> = {
  "shop.inventory.v1.StockReservationFailed": "OUT_OF_STOCK",
  "shop.payment.v1.PaymentFailed": "PAYMENT_DECLINED",
  CancelOrder: "CANCELLED",
  TimeOutOrder: "TIMED_OUT",
};

const statusesAfter: Readonly<Record<OrderState["status"], readonly OrderState["status"][]>> = {
  PENDING: ["STOCK_RESERVED", "COMPENSATING", "FAILED"],
  STOCK_RESERVED: ["COMPLETED", "COMPENSATING"],
  COMPENSATING: ["FAILED"],
  COMPLETED: [],
  FAILED: [],
};

/**
 * Order's transaction for one message.
 * @throws Violation where the row changes in a way that no order may.
 */
export function commitOrder(domain: OrderDomain, before: OrderState, message: OrderMessage): Committed<OrderState> {
  const facts = domain.decide(before, message);
  const after = facts.reduce(domain.evolve, before);
  if (after.status === before.status) {
    demand(after.version === before.version, "an order's version grows with its status only");
  } else {
    demand(statusesAfter[before.status].includes(after.status), `${before.status} became ${after.status}`);
    demand(after.version === before.version + 1, "an order's version grows by one with each change of status");
  }
  const isOpen = before.status === "PENDING" || before.status === "STOCK_RESERVED";
  if (isOpen && (message.$typeName === "CancelOrder" || message.$typeName === "TimeOutOrder")) {
    demand(after.status === "COMPENSATING", `${message.$typeName} left an open order ${after.status}`);
  }
  if ("failureReason" in before) {
    demand("failureReason" in after && after.failureReason === before.failureReason, "the failure reason was changed");
  } else if ("failureReason" in after) {
    demand(after.failureReason === reasonFor[message.$typeName], `${after.failureReason} by ${message.$typeName}`);
  }
  return { after, published: publish(before.orderId, facts, domain.toEvent) };
}

/**
 * Inventory's transaction for one message. Like its handler, it shows the domain only the levels that the domain says
 * it touches.
 * @throws Violation where an order is refused that fits.
 */
export function commitReservation(
  domain: InventoryDomain,
  before: Reservation,
  stock: StockLevels,
  message: InventoryMessage,
): Committed<Reservation> & { readonly stock: StockLevels } {
  const skus = domain.skusTouchedBy(before, message);
  const shown = new Map([...stock].filter(([sku]) => skus.includes(sku)));
  const facts = domain.decide({ reservation: before, stock: shown }, message);
  if (facts.length === 0) return { after: before, published: [], stock };
  const { reservation: after, stock: changed } = facts.reduce(domain.evolve, { reservation: before, stock: shown });
  if (after.status === "REFUSED" && message.$typeName === "shop.order.v1.OrderPlaced") {
    const fits = message.lines.every(({ sku, quantity }) => quantity <= (stock.get(sku)?.available ?? 0));
    demand(!fits, "an order was refused though all of it was available");
  }
  return {
    after,
    published: publish(before.orderId, facts, domain.toEvent),
    stock: changed.size === 0 ? stock : new Map([...stock, ...changed]),
  };
}

/** Payment's transaction for one message: an event, or the gateway's answer. */
export function commitPayment(
  domain: PaymentDomain,
  before: PaymentState,
  message: PaymentMessage,
): Committed<PaymentState> {
  const facts = domain.decide(before, message);
  return {
    after: facts.reduce(domain.evolve, before),
    published: publish(before.orderId, facts, domain.toEvent),
  };
}

/** What the payment gateway's ledger says of one order. Keyed by idempotency key: two keys are two charges. */
export interface Account {
  readonly authorizations: readonly {
    readonly key: string;
    readonly parameters: string;
    readonly amount: bigint;
    readonly status: "AUTHORIZED" | "DECLINED" | "VOIDED";
  }[];
  /** Terminal: after it nothing is authorised for the order any more. */
  readonly void: { readonly key: string; readonly amount: bigint } | undefined;
}

const gatewayUnknown: GatewayOutcome = { $typeName: "GatewayUnknown" };
/** What the gateway answers when it will not void: nothing is changed by it. */
export const voidRefused: GatewayOutcome = { $typeName: "GatewayVoidRefused", refusal: "answered 422 to void" };

export const emptyAccount: Account = { authorizations: [], void: undefined };

/** Money that is taken: what the gateway holds for the order. */
export function liveAuthorizations(account: Account): Account["authorizations"] {
  return account.authorizations.filter(({ status }) => status === "AUTHORIZED");
}

/** True where the gateway still has to decide on the call: only then `accepts` makes a difference. */
export function isUndecided(account: Account, call: GatewayCall): boolean {
  return (
    call.kind === "authorise" &&
    account.void === undefined &&
    account.authorizations.every(({ key }) => key !== call.idempotencyKey)
  );
}

/**
 * A call arrives at the gateway (services/stack/fake-gateway.ts says the same in SQL).
 * @param accepts what the payer's bank says, where it is asked.
 */
export function callArrives(
  account: Account,
  call: GatewayCall,
  accepts: boolean,
): { readonly account: Account; readonly outcome: GatewayOutcome } {
  const misused = { account, outcome: call.kind === "void" ? voidRefused : gatewayUnknown } as const;
  const recorded = account.authorizations.find(({ key }) => key === call.idempotencyKey);
  switch (call.kind) {
    case "authorise": {
      const { amount, paymentMethod } = call.terms;
      const parameters = [call.orderId, amount.minorUnits, amount.currencyCode, paymentMethod].join(" ");
      if (account.void?.key === call.idempotencyKey) return misused;
      if (recorded !== undefined) {
        if (recorded.parameters !== parameters) return misused;
        switch (recorded.status) {
          case "AUTHORIZED":
            return { account, outcome: { $typeName: "GatewayAuthorized", authorizationId: `of-${recorded.key}` } };
          case "DECLINED":
            return { account, outcome: { $typeName: "GatewayDeclined" } };
          case "VOIDED":
            return { account, outcome: { $typeName: "GatewayVoided" } };
          default:
            return unreachable(recorded.status);
        }
      }
      if (account.void !== undefined) return { account, outcome: { $typeName: "GatewayVoided" } };
      const authorization = {
        key: call.idempotencyKey,
        parameters,
        amount: amount.minorUnits,
        status: accepts ? "AUTHORIZED" : "DECLINED",
      } as const;
      return {
        account: { ...account, authorizations: [...account.authorizations, authorization] },
        outcome: accepts
          ? { $typeName: "GatewayAuthorized", authorizationId: `of-${authorization.key}` }
          : { $typeName: "GatewayDeclined" },
      };
    }
    case "void": {
      if (recorded !== undefined) return misused;
      if (account.void !== undefined) {
        return { account, outcome: { $typeName: "GatewayVoidConfirmed", voidedMinorUnits: account.void.amount } };
      }
      const amount = liveAuthorizations(account).reduce((sum, authorization) => sum + authorization.amount, 0n);
      return {
        account: {
          authorizations: account.authorizations.map((it) =>
            it.status === "AUTHORIZED" ? { ...it, status: "VOIDED" } : it,
          ),
          void: { key: call.idempotencyKey, amount },
        },
        outcome: { $typeName: "GatewayVoidConfirmed", voidedMinorUnits: amount },
      };
    }
    default:
      return unreachable(call);
  }
}

/** What the events that were published for an order have said so far, each counted once however often it was sent. */
export interface Told {
  readonly count: number;
  readonly final: "COMPLETED" | "FAILED" | undefined;
  readonly reserved: readonly Line[];
  readonly released: readonly Line[];
  readonly authorized: bigint | undefined;
  readonly declined: boolean;
  readonly voided: bigint | undefined;
}

export const nothingTold: Told = {
  count: 0,
  final: undefined,
  reserved: [],
  released: [],
  authorized: undefined,
  declined: false,
  voided: undefined,
};

/**
 * What is told once `event` is in an outbox.
 * @throws Violation for what may be told only once.
 */
export function tell(before: Told, event: SagaEvent): Told {
  const told = { ...before, count: before.count + 1 };
  demand(told.count <= eventsPerOrderMax, `more than ${eventsPerOrderMax} events for one order`);
  switch (event.$typeName) {
    case "shop.order.v1.OrderPlaced":
    case "shop.order.v1.OrderCancelRequested":
    case "shop.inventory.v1.StockReservationFailed":
      return told;
    case "shop.order.v1.OrderCompleted":
    case "shop.order.v1.OrderFailed":
      demand(told.final === undefined, `I5: ${shortName(event)} is a second final event`);
      return { ...told, final: event.$typeName === "shop.order.v1.OrderCompleted" ? "COMPLETED" : "FAILED" };
    case "shop.inventory.v1.StockReserved":
      return { ...told, reserved: addLines(told.reserved, event.lines) };
    case "shop.inventory.v1.StockReleased":
      return { ...told, released: addLines(told.released, event.lines) };
    case "shop.payment.v1.PaymentAuthorized":
      demand(told.authorized === undefined, "I7: PaymentAuthorized was published twice");
      return { ...told, authorized: event.amount?.minorUnits ?? 0n };
    case "shop.payment.v1.PaymentFailed":
      demand(!told.declined, "I7: PaymentFailed was published twice");
      return { ...told, declined: true };
    case "shop.payment.v1.PaymentVoided":
      demand(told.voided === undefined, "I7: PaymentVoided was published twice");
      return { ...told, voided: event.amount?.minorUnits ?? 0n };
    default:
      return unreachable(event);
  }
}

function addLines(a: readonly Line[], b: readonly Line[]): readonly Line[] {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of [...a, ...b]) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  return Array.from(quantities, ([sku, quantity]) => ({ sku, quantity })).sort((x, y) => (x.sku < y.sku ? -1 : 1));
}

function sameLines(a: readonly Line[], b: readonly Line[]): boolean {
  const [x, y] = [addLines(a, []), addLines(b, [])];
  return x.length === y.length && x.every((it, at) => it.sku === y[at]?.sku && it.quantity === y[at]?.quantity);
}

/** One order, as all three services and the gateway have it at one moment. */
export interface OrderWorld {
  readonly placed: OrderPlaced;
  readonly order: OrderState;
  readonly reservation: Reservation;
  readonly payment: PaymentState;
  readonly account: Account;
  readonly told: Told;
}

/**
 * What holds of an order at every moment.
 * @throws Violation
 */
export function checkOrder({ placed, order, reservation, payment, account, told }: OrderWorld): void {
  const live = liveAuthorizations(account);
  const total = placed.total?.minorUnits ?? 0n;
  demand(live.length <= 1, `I3: ${live.length} live authorisations`);
  demand(
    told.final === (order.status === "COMPLETED" || order.status === "FAILED" ? order.status : undefined),
    `I5: the order is ${order.status}, its final event says ${told.final ?? "nothing"}`,
  );

  switch (order.status) {
    case "COMPLETED":
      demand(live.length === 1 && live[0]?.amount === total, "I3: COMPLETED, and its total is not authorised");
      demand(
        reservation.status === "HELD" || reservation.status === "SOLD",
        `I5: COMPLETED, and its stock is ${reservation.status}`,
      );
      break;
    case "FAILED":
      demand(live.length === 0, "I3: FAILED, and money is still authorised");
      demand(
        reservation.status !== "HELD" && reservation.status !== "SOLD",
        `I5: FAILED, and its stock is ${reservation.status}`,
      );
      break;
    case "PENDING":
    case "STOCK_RESERVED":
    case "COMPENSATING":
      demand(reservation.status !== "SOLD", `I2: SOLD, and the order is ${order.status}`);
      break;
    default:
      unreachable(order);
  }

  switch (reservation.status) {
    case "HELD":
    case "SOLD":
      demand(sameLines(reservation.lines, placed.lines), `I2: ${reservation.status} is not what was ordered`);
      demand(
        sameLines(told.reserved, placed.lines) && told.released.length === 0,
        `I9: ${reservation.status}, but told otherwise`,
      );
      break;
    case "NONE":
    case "REFUSED":
      demand(told.reserved.length === 0 && told.released.length === 0, `I9: ${reservation.status}, but told otherwise`);
      break;
    case "RELEASED":
    case "CANCELLED":
      demand(
        sameLines(told.reserved, told.released),
        `I9: told to have released what was not reserved, or not all of it`,
      );
      demand(sameLines(reservation.lines, told.released), `I9: ${reservation.status} other lines than told`);
      break;
    default:
      unreachable(reservation);
  }

  switch (payment.status) {
    case "NONE":
    case "NOTED":
    case "AUTHORIZING":
      demand(
        told.authorized === undefined && !told.declined && told.voided === undefined,
        `I9: ${payment.status}, but told otherwise`,
      );
      break;
    case "AUTHORIZED":
      demand(told.authorized === total, "I9: AUTHORIZED, but told otherwise");
      demand(live.length === 1, "I9: AUTHORIZED here, and not at the gateway");
      break;
    case "DECLINED":
      demand(told.declined && told.authorized === undefined, "I9: DECLINED, but told otherwise");
      demand(live.length === 0, "I9: DECLINED here, and authorised at the gateway");
      break;
    case "VOIDING":
    case "VOID_REFUSED":
      demand(told.voided === undefined, "I9: told to be voided before it was");
      break;
    case "VOIDED":
      demand(
        told.voided === (account.void?.amount ?? 0n),
        "I9: told to have voided another amount than the gateway did",
      );
      demand(payment.voidedAmount.minorUnits === told.voided, "I9: VOIDED another amount than told");
      demand(live.length === 0, "I9: VOIDED here, and authorised at the gateway");
      break;
    default:
      unreachable(payment);
  }
}

/** How each reason leaves the stock and the payment, once nothing is under way any more. */
const endings: Readonly<
  Record<FailureReason, { readonly stock: readonly Reservation["status"][]; readonly payment: readonly string[] }>
> = {
  OUT_OF_STOCK: { stock: ["REFUSED"], payment: ["NOTED"] },
  PAYMENT_DECLINED: { stock: ["RELEASED"], payment: ["DECLINED"] },
  TIMED_OUT: { stock: ["CANCELLED"], payment: ["VOIDED"] },
  CANCELLED: { stock: ["CANCELLED"], payment: ["VOIDED"] },
};

/**
 * What holds of an order once nothing is under way for it any more.
 * @throws Violation
 */
export function checkEnd({ order, reservation, payment }: OrderWorld): void {
  const found = `stock ${reservation.status}, payment ${payment.status}`;
  switch (order.status) {
    case "COMPLETED":
      demand(reservation.status === "SOLD" && payment.status === "AUTHORIZED", `I5: COMPLETED ends with ${found}`);
      return;
    case "FAILED": {
      const ending = endings[order.failureReason];
      demand(
        ending.stock.includes(reservation.status) && ending.payment.includes(payment.status),
        `I5: FAILED (${order.failureReason}) ends with ${found}`,
      );
      return;
    }
    case "PENDING":
    case "STOCK_RESERVED":
    case "COMPENSATING":
      throw new Violation(`I4: nothing is under way, and the order is ${order.status} (${found})`);
    default:
      unreachable(order);
  }
}

/**
 * What holds of the stock at every moment (I2).
 * @throws Violation
 */
export function checkStock(initial: StockLevels, stock: StockLevels, reservations: readonly Reservation[]): void {
  for (const [sku, { available, held, sold }] of stock) {
    const of = (status: "HELD" | "SOLD") =>
      reservations.reduce(
        (sum, it) => sum + (it.status === status ? (it.lines.find((line) => line.sku === sku)?.quantity ?? 0) : 0),
        0,
      );
    const shown = `${sku} has available ${available}, held ${held}, sold ${sold}`;
    demand(available >= 0 && held >= 0 && sold >= 0, `I2: ${shown}: a negative number`);
    demand(available + held + sold === (initial.get(sku)?.available ?? 0), `I2: ${shown}: pieces came or went`);
    demand(held === of("HELD"), `I2: ${shown}, but the orders hold ${of("HELD")}`);
    demand(sold === of("SOLD"), `I2: ${shown}, but the orders bought ${of("SOLD")}`);
  }
}
