import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { StockReservedSchema } from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCancelRequestedSchema, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import {
  PaymentAuthorizedSchema,
  PaymentFailed_Reason,
  PaymentFailedSchema,
  PaymentVoidedSchema,
} from "../../proto/gen/shop/payment/v1/events_pb.ts";
import {
  decide,
  evolve,
  type GatewayOutcome,
  nextCall,
  noPayment,
  type PaymentMessage,
  type PaymentState,
  type PaymentStatus,
  toEvent,
} from "./domain.ts";

const orderId = "018f0000-0000-7000-8000-000000000001";
const amount = { currencyCode: "EUR", minorUnits: 1999n };
const nothing = { currencyCode: "EUR", minorUnits: 0n };
const terms = { amount, paymentMethod: "pm_ok" };
const authorizationId = "auth-1";

const placed = create(OrderPlacedSchema, { orderId, total: amount, paymentMethod: "pm_ok" });
const stockReserved = create(StockReservedSchema, { orderId });
const cancelRequested = create(OrderCancelRequestedSchema, { orderId });
const gatewayAuthorized: GatewayOutcome = { $typeName: "GatewayAuthorized", authorizationId };
const gatewayDeclined: GatewayOutcome = { $typeName: "GatewayDeclined" };
const gatewayVoided: GatewayOutcome = { $typeName: "GatewayVoided" };
const voidConfirmed: GatewayOutcome = { $typeName: "GatewayVoidConfirmed", voidedMinorUnits: 1999n };
const nothingToVoid: GatewayOutcome = { $typeName: "GatewayVoidConfirmed", voidedMinorUnits: 0n };
const gatewayUnknown: GatewayOutcome = { $typeName: "GatewayUnknown" };

const authorizedEvent = create(PaymentAuthorizedSchema, { orderId, amount, authorizationId });
const failedEvent = create(PaymentFailedSchema, { orderId, reason: PaymentFailed_Reason.DECLINED });
const voidedEvent = (voided: typeof amount) => create(PaymentVoidedSchema, { orderId, amount: voided });

const none = noPayment(orderId);
const noted: PaymentState = { orderId, status: "NOTED", terms };
const authorizing: PaymentState = { orderId, status: "AUTHORIZING", terms };
const authorized: PaymentState = { orderId, status: "AUTHORIZED", terms, authorizationId };
const declined: PaymentState = { orderId, status: "DECLINED", terms };
const voiding: PaymentState = { orderId, status: "VOIDING", terms, authorizationId: undefined };
const gatewayRefuses: GatewayOutcome = { $typeName: "GatewayVoidRefused", refusal: "answered 403 to void" };
const voidRefused: PaymentState = {
  orderId,
  status: "VOID_REFUSED",
  terms,
  authorizationId: undefined,
  refusal: "answered 403 to void",
};
const voided: PaymentState = {
  orderId,
  status: "VOIDED",
  voidedAmount: nothing,
  terms,
  authorizationId: undefined,
};

/** The state after the messages, and the events that they published. */
function given(state: PaymentState, ...messages: readonly PaymentMessage[]) {
  const published = [];
  for (const message of messages) {
    for (const fact of decide(state, message)) {
      state = evolve(state, fact);
      const event = toEvent(orderId, fact);
      if (event !== undefined) published.push(event);
    }
  }
  return { state, published };
}

describe("a payment", () => {
  test("a payment is noted when the order is placed, and no event is published", () => {
    expect(given(none, placed)).toEqual({ state: noted, published: [] });
  });

  test("an authorise is needed once the stock is reserved", () => {
    expect(given(noted, stockReserved)).toEqual({ state: authorizing, published: [] });
  });

  test("a payment is authorised when the gateway says so", () => {
    expect(given(authorizing, gatewayAuthorized)).toEqual({ state: authorized, published: [authorizedEvent] });
  });

  test.each([
    ["GatewayDeclined", gatewayDeclined],
    ["GatewayVoided", gatewayVoided],
  ])("a payment fails on %s", (_, outcome) => {
    expect(given(authorizing, outcome)).toEqual({ state: declined, published: [failedEvent] });
  });

  test("a payment stays AUTHORIZING while the outcome is unknown", () => {
    expect(given(authorizing, gatewayUnknown, gatewayUnknown)).toEqual({ state: authorizing, published: [] });
  });

  test("an OrderPlaced without a total is an error", () => {
    expect(() => decide(none, create(OrderPlacedSchema, { orderId }))).toThrow("total");
  });
});

describe("a cancel", () => {
  test("a cancel that arrives before OrderPlaced is answered at once, and nothing is charged later", () => {
    const nothingKnown = { currencyCode: "XXX", minorUnits: 0n };
    expect(given(none, cancelRequested, placed, stockReserved)).toEqual({
      state: { orderId, status: "VOIDED", voidedAmount: nothingKnown, terms: undefined, authorizationId: undefined },
      published: [voidedEvent(nothingKnown)],
    });
  });

  test("a cancel before the authorise is answered at once, because the gateway was never called", () => {
    expect(given(noted, cancelRequested, stockReserved)).toEqual({ state: voided, published: [voidedEvent(nothing)] });
  });

  test.each([authorizing, declined, authorized].map((from) => [from.status, from] as const))(
    "a cancel in %s is answered only when the gateway has confirmed the void",
    (_, from) => {
      const asked = given(from, cancelRequested, gatewayUnknown);
      expect(asked.state.status).toBe("VOIDING");
      expect(asked.published).toEqual([]);
      const { state, published } = given(asked.state, nothingToVoid);
      expect(state.status).toBe("VOIDED");
      expect(published).toEqual([voidedEvent(nothing)]);
    },
  );

  test("PaymentVoided carries the amount that the void gave back, and the payment keeps its authorisation id", () => {
    expect(given(authorized, cancelRequested, voidConfirmed)).toEqual({
      state: { orderId, status: "VOIDED", voidedAmount: amount, terms, authorizationId },
      published: [voidedEvent(amount)],
    });
  });

  test("an authorisation that arrives after the cancel is ignored", () => {
    expect(given(authorizing, cancelRequested, gatewayAuthorized, voidConfirmed)).toEqual({
      state: { orderId, status: "VOIDED", voidedAmount: amount, terms, authorizationId: undefined },
      published: [voidedEvent(amount)],
    });
  });
});

describe("a void that the gateway refuses", () => {
  test("a refused void makes the payment VOID_REFUSED, and no event is published", () => {
    expect(given(voiding, gatewayRefuses, gatewayUnknown)).toEqual({ state: voidRefused, published: [] });
  });

  test("a refused void keeps the latest refusal, and is repeated under the same key", () => {
    const otherWords: GatewayOutcome = { $typeName: "GatewayVoidRefused", refusal: "answered 410 to void" };
    const { state } = given(voiding, gatewayRefuses, otherWords);
    expect(state).toEqual({ ...voidRefused, refusal: "answered 410 to void" });
    expect(nextCall(state)).toEqual(nextCall(voiding));
  });

  test("a refused void can still be confirmed", () => {
    expect(given(authorized, cancelRequested, gatewayRefuses, voidConfirmed)).toEqual({
      state: { orderId, status: "VOIDED", voidedAmount: amount, terms, authorizationId },
      published: [voidedEvent(amount)],
    });
  });
});

describe("the next call", () => {
  test("the key of an authorise depends only on the order", () => {
    expect(nextCall(authorizing)).toEqual({
      kind: "authorise",
      orderId,
      idempotencyKey: `authorise-${orderId}`,
      terms,
    });
    expect(nextCall(given(authorizing, gatewayUnknown).state)).toEqual(nextCall(authorizing));
  });

  test("the key of a void depends only on the order", () => {
    expect(nextCall(voiding)).toEqual({ kind: "void", orderId, idempotencyKey: `void-${orderId}`, terms });
    expect(nextCall(given(voiding, gatewayUnknown).state)).toEqual(nextCall(voiding));
  });

  test.each([none, noted, authorized, declined, voided].map((state) => [state.status, state] as const))(
    "%s needs no call to the gateway",
    (_, state) => {
      expect(nextCall(state)).toBeUndefined();
    },
  );
});

describe("late, duplicate and out-of-order messages", () => {
  const outcomes = [gatewayAuthorized, gatewayDeclined, gatewayVoided];
  /** The messages that change a payment, by its status. All others change nothing. */
  const effective: Readonly<Record<PaymentStatus, readonly PaymentMessage[]>> = {
    NONE: [placed, cancelRequested],
    NOTED: [stockReserved, cancelRequested],
    AUTHORIZING: [cancelRequested, ...outcomes],
    AUTHORIZED: [cancelRequested],
    DECLINED: [cancelRequested],
    VOIDING: [voidConfirmed, gatewayRefuses],
    VOID_REFUSED: [voidConfirmed],
    VOIDED: [],
  };
  for (const state of [none, noted, authorizing, authorized, declined, voiding, voidRefused, voided]) {
    for (const message of [
      placed,
      stockReserved,
      cancelRequested,
      ...outcomes,
      voidConfirmed,
      gatewayRefuses,
      gatewayUnknown,
    ]) {
      const matters = effective[state.status].includes(message);
      test(`${message.$typeName} in ${state.status} changes ${matters ? "the payment once" : "nothing"}`, () => {
        expect(decide(state, message).length > 0).toBe(matters);
        expect(given(state, message, message)).toEqual(given(state, message));
      });
    }
  }
});
