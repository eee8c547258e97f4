import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCancelRequestedSchema, OrderFailedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { Order_FailureReason } from "../../proto/gen/shop/order/v1/order_pb.ts";
import {
  PaymentAuthorizedSchema,
  PaymentFailedSchema,
  PaymentVoidedSchema,
} from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { decide, evolve, type OrderMessage, type OrderState, toEvent } from "./domain.ts";

const orderId = "018f0000-0000-7000-8000-000000000001";
const stockReserved = create(StockReservedSchema, { orderId });
const reservationFailed = create(StockReservationFailedSchema, { orderId });
const stockReleased = create(StockReleasedSchema, { orderId });
const authorized = create(PaymentAuthorizedSchema, { orderId });
const declined = create(PaymentFailedSchema, { orderId });
const voided = create(PaymentVoidedSchema, { orderId });
const cancel: OrderMessage = { $typeName: "CancelOrder" };
const timeOut: OrderMessage = { $typeName: "TimeOutOrder" };
const everyMessage: readonly OrderMessage[] = [
  cancel,
  timeOut,
  stockReserved,
  reservationFailed,
  stockReleased,
  authorized,
  declined,
  voided,
];

const pending: OrderState = { orderId, version: 1, status: "PENDING" };
const reserved: OrderState = { orderId, version: 2, status: "STOCK_RESERVED" };
const compensating = (stock: boolean, payment: boolean): OrderState => ({
  orderId,
  version: 3,
  status: "COMPENSATING",
  failureReason: payment ? "CANCELLED" : "PAYMENT_DECLINED",
  awaiting: { stock, payment },
});

/** The state after the messages, and the types of the events that they published. */
function after(state: OrderState, ...messages: readonly OrderMessage[]) {
  const published: string[] = [];
  for (const message of messages) {
    for (const fact of decide(state, message)) {
      state = evolve(state, fact);
      const event = toEvent(orderId, fact);
      if (event !== undefined) published.push(event.$typeName);
    }
  }
  return { state, published };
}

describe("decide and evolve", () => {
  test("an order completes once its stock is reserved and its payment authorised", () => {
    expect(after(pending, stockReserved, authorized)).toEqual({
      state: { orderId, version: 3, status: "COMPLETED" },
      published: ["shop.order.v1.OrderCompleted"],
    });
  });

  test("an order that is out of stock fails at once, because there is nothing to undo", () => {
    expect(after(pending, reservationFailed)).toEqual({
      state: { orderId, version: 2, status: "FAILED", failureReason: "OUT_OF_STOCK" },
      published: ["shop.order.v1.OrderFailed"],
    });
  });

  test("an order whose payment is declined fails once its stock is released", () => {
    expect(after(pending, stockReserved, declined)).toEqual({ state: compensating(true, false), published: [] });
    expect(after(pending, stockReserved, declined, stockReleased)).toEqual({
      state: { orderId, version: 4, status: "FAILED", failureReason: "PAYMENT_DECLINED" },
      published: ["shop.order.v1.OrderFailed"],
    });
  });

  test("a cancelled order fails once inventory and payment have answered, in either order", () => {
    for (const answers of [
      [stockReleased, voided],
      [voided, stockReleased],
    ] as const) {
      const half = after(compensating(true, true), answers[0]);
      expect(half.state.status).toBe("COMPENSATING");
      expect(half.state.version).toBe(3);
      expect(half.published).toEqual([]);
      expect(after(half.state, answers[1])).toEqual({
        state: { orderId, version: 4, status: "FAILED", failureReason: "CANCELLED" },
        published: ["shop.order.v1.OrderFailed"],
      });
    }
  });

  test("a cancel or a timeout starts the compensation of an undecided order, once", () => {
    for (const [command, failureReason] of [
      [cancel, "CANCELLED"],
      [timeOut, "TIMED_OUT"],
    ] as const) {
      for (const state of [pending, reserved]) {
        expect(after(state, command, cancel, timeOut)).toEqual({
          state: {
            orderId,
            version: state.version + 1,
            status: "COMPENSATING",
            failureReason,
            awaiting: { stock: true, payment: true },
          },
          published: ["shop.order.v1.OrderCancelRequested"],
        });
      }
      expect(decide(compensating(true, false), command)).toEqual([]);
    }
  });

  test("a message that is delivered twice changes an order once", () => {
    const paths = [
      [stockReserved, authorized],
      [reservationFailed],
      [stockReserved, declined, stockReleased],
    ] satisfies OrderMessage[][];
    for (const path of paths) {
      const doubled = path.flatMap((message) => [message, message]);
      expect(after(pending, ...doubled)).toEqual(after(pending, ...path));
    }
  });

  test("a final order ignores every message", () => {
    const finals: readonly OrderState[] = [
      { orderId, version: 3, status: "COMPLETED" },
      { orderId, version: 4, status: "FAILED", failureReason: "TIMED_OUT" },
    ];
    for (const state of finals) for (const message of everyMessage) expect(decide(state, message)).toEqual([]);
  });

  test("an order ignores messages that arrive out of order", () => {
    for (const message of [authorized, declined, stockReleased, voided]) expect(decide(pending, message)).toEqual([]);
    for (const message of [stockReserved, reservationFailed, stockReleased, voided]) {
      expect(decide(reserved, message)).toEqual([]);
    }
    for (const message of [stockReserved, reservationFailed, authorized, declined, voided]) {
      expect(decide(compensating(true, false), message)).toEqual([]);
    }
  });

  test("an order keeps its first failure reason", () => {
    const state = compensating(true, true);
    const { state: failed } = after(state, declined, stockReleased, voided);
    expect(failed).toMatchObject({ status: "FAILED", failureReason: "CANCELLED" });
  });
});

describe("toEvent", () => {
  test("a cancel or a timeout is published; a declined payment is not, because PaymentFailed has been published already", () => {
    const awaiting = { stock: true, payment: true };
    expect(toEvent(orderId, { kind: "CompensationStarted", reason: "TIMED_OUT", awaiting })).toEqual(
      create(OrderCancelRequestedSchema, { orderId, reason: Order_FailureReason.TIMED_OUT }),
    );
    expect(
      toEvent(orderId, {
        kind: "CompensationStarted",
        reason: "PAYMENT_DECLINED",
        awaiting: { stock: true, payment: false },
      }),
    ).toBeUndefined();
  });

  test("OrderFailed carries the failure reason", () => {
    expect(toEvent(orderId, { kind: "Failed", reason: "OUT_OF_STOCK" })).toEqual(
      create(OrderFailedSchema, { orderId, reason: Order_FailureReason.OUT_OF_STOCK }),
    );
  });
});
