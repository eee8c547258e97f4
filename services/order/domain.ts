/**
 * An order's saga as pure functions: `decide` says what a message means for an order, `evolve` gives the order's next
 * state. No I/O, no clock, no randomness.
 *
 *     PENDING → STOCK_RESERVED → COMPLETED
 *     PENDING or STOCK_RESERVED → COMPENSATING → FAILED
 *     PENDING → FAILED, if the stock is short: there is nothing to compensate
 *
 * The events between the services are listed in proto/event-table.ts.
 */
import { create, type Message } from "@bufbuild/protobuf";
import type { HandledBy } from "../../proto/event-table.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderFailedSchema,
} from "../../proto/gen/shop/order/v1/events_pb.ts";
import { Order_FailureReason } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { unreachable } from "../kit/errors.ts";

export type FailureReason = "OUT_OF_STOCK" | "PAYMENT_DECLINED" | "TIMED_OUT" | "CANCELLED";

/** The services whose answer a compensation still awaits. */
export interface Awaiting {
  readonly stock: boolean;
  readonly payment: boolean;
}

/** An order in the saga. `version` grows by one with each change of status. */
export type OrderState = { readonly orderId: string; readonly version: number } & (
  | { readonly status: "PENDING" }
  | { readonly status: "STOCK_RESERVED" }
  | { readonly status: "COMPLETED" }
  | { readonly status: "COMPENSATING"; readonly failureReason: FailureReason; readonly awaiting: Awaiting }
  | { readonly status: "FAILED"; readonly failureReason: FailureReason }
);

export type OrderStatus = OrderState["status"];

/** True if the status can no longer change. */
export function isFinal(status: OrderStatus): boolean {
  return status === "COMPLETED" || status === "FAILED";
}

/** A message that does not arrive on the topic: a client's call, or the deadline sweep. */
export type OrderCommand =
  /** The owner cancels the order. */
  | { readonly $typeName: "CancelOrder" }
  /** The order's deadline has passed. */
  | { readonly $typeName: "TimeOutOrder" };

/** Everything that an order can receive. */
export type OrderMessage = HandledBy<"order"> | OrderCommand;

/** Something that happened to an order. {@link toEvent} says which facts are published to the other services. */
export type OrderFact =
  | { readonly kind: "StockWasReserved" }
  | { readonly kind: "Completed" }
  | { readonly kind: "CompensationStarted"; readonly reason: FailureReason; readonly awaiting: Awaiting }
  | { readonly kind: "StockReleaseConfirmed" }
  | { readonly kind: "PaymentVoidConfirmed" }
  | { readonly kind: "Failed"; readonly reason: FailureReason };

/**
 * The facts that follow from a message: none for a late, duplicate or out-of-order message. Dropping one of these is safe.
 * All events of an order share a partition, and a service publishes an event only after it has handled the event's cause.
 * So the first delivery of an event never overtakes the event that caused it.
 */
export function decide(state: OrderState, message: OrderMessage): readonly OrderFact[] {
  switch (message.$typeName) {
    case "shop.inventory.v1.StockReserved":
      return state.status === "PENDING" ? [{ kind: "StockWasReserved" }] : [];
    case "shop.inventory.v1.StockReservationFailed":
      return state.status === "PENDING" ? [{ kind: "Failed", reason: "OUT_OF_STOCK" }] : [];
    case "shop.payment.v1.PaymentAuthorized":
      return state.status === "STOCK_RESERVED" ? [{ kind: "Completed" }] : [];
    case "shop.payment.v1.PaymentFailed":
      // Nothing was charged, so only the stock must be released. Inventory does that on the same event.
      return state.status === "STOCK_RESERVED"
        ? [{ kind: "CompensationStarted", reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }]
        : [];
    case "shop.inventory.v1.StockReleased":
      if (state.status !== "COMPENSATING" || !state.awaiting.stock) return [];
      return state.awaiting.payment
        ? [{ kind: "StockReleaseConfirmed" }]
        : [{ kind: "StockReleaseConfirmed" }, { kind: "Failed", reason: state.failureReason }];
    case "shop.payment.v1.PaymentVoided":
      if (state.status !== "COMPENSATING" || !state.awaiting.payment) return [];
      return state.awaiting.stock
        ? [{ kind: "PaymentVoidConfirmed" }]
        : [{ kind: "PaymentVoidConfirmed" }, { kind: "Failed", reason: state.failureReason }];
    case "CancelOrder":
      return compensate(state, "CANCELLED");
    case "TimeOutOrder":
      return compensate(state, "TIMED_OUT");
    default:
      return unreachable(message);
  }
}

/**
 * Starts to undo an undecided order. Order cannot know how far inventory and payment have got, so it awaits an answer
 * from both; each answers even if it had nothing to undo.
 */
function compensate(state: OrderState, reason: FailureReason): readonly OrderFact[] {
  return state.status === "PENDING" || state.status === "STOCK_RESERVED"
    ? [{ kind: "CompensationStarted", reason, awaiting: { stock: true, payment: true } }]
    : [];
}

/** The order after a fact. */
export function evolve(state: OrderState, fact: OrderFact): OrderState {
  const { orderId } = state;
  // Used by the facts that change the status. The others keep the version.
  const version = state.version + 1;
  switch (fact.kind) {
    case "StockWasReserved":
      return { orderId, version, status: "STOCK_RESERVED" };
    case "Completed":
      return { orderId, version, status: "COMPLETED" };
    case "CompensationStarted":
      return { orderId, version, status: "COMPENSATING", failureReason: fact.reason, awaiting: fact.awaiting };
    case "StockReleaseConfirmed":
      return state.status === "COMPENSATING" ? { ...state, awaiting: { ...state.awaiting, stock: false } } : state;
    case "PaymentVoidConfirmed":
      return state.status === "COMPENSATING" ? { ...state, awaiting: { ...state.awaiting, payment: false } } : state;
    case "Failed":
      return { orderId, version, status: "FAILED", failureReason: fact.reason };
    default:
      return unreachable(fact);
  }
}

/** The event that publishes a fact; undefined if the fact concerns only Order. */
export function toEvent(orderId: string, fact: OrderFact): Message | undefined {
  switch (fact.kind) {
    case "Completed":
      return create(OrderCompletedSchema, { orderId });
    case "Failed":
      return create(OrderFailedSchema, { orderId, reason: Order_FailureReason[fact.reason] });
    case "CompensationStarted":
      // Payment is awaited unless it declined. If it declined, its PaymentFailed has already informed inventory, and
      // payment has nothing to undo.
      return fact.awaiting.payment
        ? create(OrderCancelRequestedSchema, { orderId, reason: Order_FailureReason[fact.reason] })
        : undefined;
    case "StockWasReserved":
    case "StockReleaseConfirmed":
    case "PaymentVoidConfirmed":
      return undefined;
    default:
      return unreachable(fact);
  }
}
