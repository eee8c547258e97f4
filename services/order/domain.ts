/**
 * An order's saga, as pure functions: what a message means for an order, and what the order is after it.
 * No I/O, no clock, no randomness. The table of events is proto/event-table.ts.
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

/** Which answers a compensation still waits for. */
export interface Awaiting {
  readonly stock: boolean;
  readonly payment: boolean;
}

/** Where an order stands. `version` grows by one with every change of status. */
export type OrderState = { readonly orderId: string; readonly version: number } & (
  | { readonly status: "PENDING" }
  | { readonly status: "STOCK_RESERVED" }
  | { readonly status: "COMPLETED" }
  | { readonly status: "COMPENSATING"; readonly failureReason: FailureReason; readonly awaiting: Awaiting }
  | { readonly status: "FAILED"; readonly failureReason: FailureReason }
);

export type OrderStatus = OrderState["status"];

/** Nothing changes any more. */
export function isFinal(status: OrderStatus): boolean {
  return status === "COMPLETED" || status === "FAILED";
}

/** What is asked of an order from outside the saga: both are messages that its state may ignore. */
export type OrderCommand =
  /** Its owner does not want it any more. */
  | { readonly $typeName: "CancelOrder" }
  /** Its deadline has passed. */
  | { readonly $typeName: "TimeOutOrder" };

/** What can happen to an order. */
export type OrderMessage = HandledBy<"order"> | OrderCommand;

/** What did happen. {@link toEvent} says which facts the other services hear of. */
export type OrderFact =
  | { readonly kind: "StockWasReserved" }
  | { readonly kind: "Completed" }
  | { readonly kind: "CompensationStarted"; readonly reason: FailureReason; readonly awaiting: Awaiting }
  | { readonly kind: "StockAnswered" }
  | { readonly kind: "PaymentAnswered" }
  | { readonly kind: "Failed"; readonly reason: FailureReason };

/** What a message means for an order. Late, doubled and out-of-order messages mean nothing. */
export function decide(state: OrderState, message: OrderMessage): readonly OrderFact[] {
  switch (message.$typeName) {
    case "shop.inventory.v1.StockReserved":
      return state.status === "PENDING" ? [{ kind: "StockWasReserved" }] : [];
    case "shop.inventory.v1.StockReservationFailed":
      return state.status === "PENDING" ? [{ kind: "Failed", reason: "OUT_OF_STOCK" }] : [];
    case "shop.payment.v1.PaymentAuthorized":
      return state.status === "STOCK_RESERVED" ? [{ kind: "Completed" }] : [];
    case "shop.payment.v1.PaymentFailed":
      // Nothing is charged, so only the stock is to be undone; inventory does so on the same event.
      return state.status === "STOCK_RESERVED"
        ? [{ kind: "CompensationStarted", reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }]
        : [];
    case "shop.inventory.v1.StockReleased":
      if (state.status !== "COMPENSATING" || !state.awaiting.stock) return [];
      return state.awaiting.payment
        ? [{ kind: "StockAnswered" }]
        : [{ kind: "StockAnswered" }, { kind: "Failed", reason: state.failureReason }];
    case "shop.payment.v1.PaymentVoided":
      if (state.status !== "COMPENSATING" || !state.awaiting.payment) return [];
      return state.awaiting.stock
        ? [{ kind: "PaymentAnswered" }]
        : [{ kind: "PaymentAnswered" }, { kind: "Failed", reason: state.failureReason }];
    case "CancelOrder":
      return compensate(state, "CANCELLED");
    case "TimeOutOrder":
      return compensate(state, "TIMED_OUT");
    default:
      return unreachable(message);
  }
}

/** Whatever may have been done by now is undone: both others answer, also where they had nothing to undo. */
function compensate(state: OrderState, reason: FailureReason): readonly OrderFact[] {
  return state.status === "PENDING" || state.status === "STOCK_RESERVED"
    ? [{ kind: "CompensationStarted", reason, awaiting: { stock: true, payment: true } }]
    : [];
}

/** The order after a fact. */
export function evolve(state: OrderState, fact: OrderFact): OrderState {
  const { orderId } = state;
  const version = state.version + 1;
  switch (fact.kind) {
    case "StockWasReserved":
      return { orderId, version, status: "STOCK_RESERVED" };
    case "Completed":
      return { orderId, version, status: "COMPLETED" };
    case "CompensationStarted":
      return { orderId, version, status: "COMPENSATING", failureReason: fact.reason, awaiting: fact.awaiting };
    case "StockAnswered":
      return state.status === "COMPENSATING" ? { ...state, awaiting: { ...state.awaiting, stock: false } } : state;
    case "PaymentAnswered":
      return state.status === "COMPENSATING" ? { ...state, awaiting: { ...state.awaiting, payment: false } } : state;
    case "Failed":
      return { orderId, version, status: "FAILED", failureReason: fact.reason };
    default:
      return unreachable(fact);
  }
}

/** The event that tells the other services of a fact; undefined for what is Order's own business. */
export function toEvent(orderId: string, fact: OrderFact): Message | undefined {
  switch (fact.kind) {
    case "Completed":
      return create(OrderCompletedSchema, { orderId });
    case "Failed":
      return create(OrderFailedSchema, { orderId, reason: Order_FailureReason[fact.reason] });
    case "CompensationStarted":
      // Where payment declined, both others know already.
      return fact.awaiting.payment
        ? create(OrderCancelRequestedSchema, { orderId, reason: Order_FailureReason[fact.reason] })
        : undefined;
    case "StockWasReserved":
    case "StockAnswered":
    case "PaymentAnswered":
      return undefined;
    default:
      return unreachable(fact);
  }
}
