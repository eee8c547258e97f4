/**
 * An order's payment as pure functions: `decide` says what a message means for the payment, `evolve` gives its next state,
 * and `nextCall` says which call to the payment gateway that state needs. The gateway's answers are messages too.
 * No I/O, no clock, no randomness.
 *
 *     NONE → NOTED → AUTHORIZING → AUTHORIZED or DECLINED
 *     NONE or NOTED → VOIDED, after a cancel or a timeout: the gateway was never called
 *     AUTHORIZING, AUTHORIZED or DECLINED → VOIDING → VOIDED, after a cancel or a timeout
 *     VOIDING → VOID_REFUSED → VOIDED, if the gateway refuses the void at first
 *
 * The events between the services are listed in proto/event-table.ts.
 */
import { create, type Message } from "@bufbuild/protobuf";
import type { HandledBy } from "../../proto/event-table.ts";
import {
  PaymentAuthorizedSchema,
  PaymentFailed_Reason,
  PaymentFailedSchema,
  PaymentVoidedSchema,
} from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { unreachable } from "../kit/errors.ts";

/** An amount in the currency's smallest unit. */
export interface Amount {
  /** ISO 4217; XXX (no currency) if the order was cancelled before payment knew its currency. */
  readonly currencyCode: string;
  readonly minorUnits: bigint;
}

/** What to charge, and how. */
export interface Terms {
  readonly amount: Amount;
  readonly paymentMethod: string;
}

/** A payment in the saga. */
export type PaymentState = { readonly orderId: string } & (
  | { readonly status: "NONE" }
  | { readonly status: "NOTED"; readonly terms: Terms }
  /** From here on the gateway may have charged. */
  | { readonly status: "AUTHORIZING"; readonly terms: Terms }
  | { readonly status: "AUTHORIZED"; readonly terms: Terms; readonly authorizationId: string }
  | { readonly status: "DECLINED"; readonly terms: Terms }
  | { readonly status: "VOIDING"; readonly terms: Terms; readonly authorizationId: string | undefined }
  /** The gateway refused the void. The worker keeps asking, and an operator has to look. */
  | {
      readonly status: "VOID_REFUSED";
      readonly terms: Terms;
      readonly authorizationId: string | undefined;
      /** The gateway's latest answer. */
      readonly refusal: string;
    }
  /** Kept, so that an OrderPlaced or StockReserved that arrives after the cancel charges nothing. */
  | {
      readonly status: "VOIDED";
      readonly voidedAmount: Amount;
      /** Undefined if the cancel arrived before OrderPlaced. */
      readonly terms: Terms | undefined;
      readonly authorizationId: string | undefined;
    }
);

export type PaymentStatus = PaymentState["status"];

/** The payment gateway's answer to a call. */
export type GatewayOutcome =
  | { readonly $typeName: "GatewayAuthorized"; readonly authorizationId: string }
  | { readonly $typeName: "GatewayDeclined" }
  /** The answer to an authorise that reached the gateway after the void. */
  | { readonly $typeName: "GatewayVoided" }
  | { readonly $typeName: "GatewayVoidConfirmed"; readonly voidedMinorUnits: bigint }
  /** The gateway did not void and says that it will not. */
  | { readonly $typeName: "GatewayVoidRefused"; readonly refusal: string }
  /** The call may have succeeded or not. It must be repeated with the same key. */
  | { readonly $typeName: "GatewayUnknown" };

/** Everything that a payment can receive. */
export type PaymentMessage = HandledBy<"payment"> | GatewayOutcome;

/** A change of a payment. {@link toEvent} says which changes are published to the other services. */
export type PaymentFact =
  | { readonly kind: "Noted"; readonly terms: Terms }
  | { readonly kind: "AuthorizationStarted"; readonly terms: Terms }
  | { readonly kind: "Authorized"; readonly terms: Terms; readonly authorizationId: string }
  | { readonly kind: "Declined"; readonly terms: Terms }
  | { readonly kind: "VoidStarted"; readonly terms: Terms; readonly authorizationId: string | undefined }
  | {
      readonly kind: "VoidRefused";
      readonly terms: Terms;
      readonly authorizationId: string | undefined;
      readonly refusal: string;
    }
  | {
      readonly kind: "Voided";
      readonly voidedAmount: Amount;
      readonly terms: Terms | undefined;
      readonly authorizationId: string | undefined;
    };

/** A call to the payment gateway. Its key depends only on the order and the kind, so that repeated calls take effect once. */
export interface GatewayCall {
  readonly kind: "authorise" | "void";
  readonly orderId: string;
  readonly idempotencyKey: string;
  /** What to charge; for a void, what may have been charged. */
  readonly terms: Terms;
}

/** The payment of an order that payment has no events of yet. */
export function noPayment(orderId: string): PaymentState {
  return { orderId, status: "NONE" };
}

/**
 * What a message changes. A late, duplicate or out-of-order message changes nothing: the list is empty.
 * @throws Error for an OrderPlaced without a total.
 */
export function decide(state: PaymentState, message: PaymentMessage): readonly PaymentFact[] {
  switch (message.$typeName) {
    case "shop.order.v1.OrderPlaced": {
      if (state.status !== "NONE") return [];
      const { total, paymentMethod } = message;
      if (total === undefined) throw new Error("OrderPlaced has no total.");
      const { currencyCode, minorUnits } = total;
      return [{ kind: "Noted", terms: { amount: { currencyCode, minorUnits }, paymentMethod } }];
    }
    case "shop.inventory.v1.StockReserved":
      return state.status === "NOTED" ? [{ kind: "AuthorizationStarted", terms: state.terms }] : [];
    case "shop.order.v1.OrderCancelRequested":
      return cancel(state);
    case "GatewayAuthorized":
      // In VOIDING it is too late: the void cancels this authorisation.
      return state.status === "AUTHORIZING"
        ? [{ kind: "Authorized", terms: state.terms, authorizationId: message.authorizationId }]
        : [];
    case "GatewayDeclined":
    case "GatewayVoided":
      return state.status === "AUTHORIZING" ? [{ kind: "Declined", terms: state.terms }] : [];
    case "GatewayVoidRefused": {
      const isNew =
        state.status === "VOIDING" || (state.status === "VOID_REFUSED" && state.refusal !== message.refusal);
      if (!isNew) return [];
      const { terms, authorizationId } = state;
      return [{ kind: "VoidRefused", terms, authorizationId, refusal: message.refusal }];
    }
    case "GatewayVoidConfirmed": {
      if (state.status !== "VOIDING" && state.status !== "VOID_REFUSED") return [];
      const { terms, authorizationId } = state;
      const voidedAmount = { currencyCode: terms.amount.currencyCode, minorUnits: message.voidedMinorUnits };
      return [{ kind: "Voided", voidedAmount, terms, authorizationId }];
    }
    case "GatewayUnknown":
      return [];
    default:
      return unreachable(message);
  }
}

/** Cancels a payment: at once if the gateway was never called, else by a void. */
function cancel(state: PaymentState): readonly PaymentFact[] {
  switch (state.status) {
    case "NONE":
      return [{ kind: "Voided", voidedAmount: nothing("XXX"), terms: undefined, authorizationId: undefined }];
    case "NOTED":
      return [
        {
          kind: "Voided",
          voidedAmount: nothing(state.terms.amount.currencyCode),
          terms: state.terms,
          authorizationId: undefined,
        },
      ];
    case "AUTHORIZING":
    case "DECLINED":
      // The gateway may have been called. Only its void guarantees that nothing is charged, also not by a call that is late.
      return [{ kind: "VoidStarted", terms: state.terms, authorizationId: undefined }];
    case "AUTHORIZED":
      return [{ kind: "VoidStarted", terms: state.terms, authorizationId: state.authorizationId }];
    case "VOIDING":
    case "VOID_REFUSED":
    case "VOIDED":
      return [];
    default:
      return unreachable(state);
  }
}

function nothing(currencyCode: string): Amount {
  return { currencyCode, minorUnits: 0n };
}

/** The payment after a fact. */
export function evolve({ orderId }: PaymentState, fact: PaymentFact): PaymentState {
  switch (fact.kind) {
    case "Noted":
      return { orderId, status: "NOTED", terms: fact.terms };
    case "AuthorizationStarted":
      return { orderId, status: "AUTHORIZING", terms: fact.terms };
    case "Authorized":
      return { orderId, status: "AUTHORIZED", terms: fact.terms, authorizationId: fact.authorizationId };
    case "Declined":
      return { orderId, status: "DECLINED", terms: fact.terms };
    case "VoidStarted":
      return { orderId, status: "VOIDING", terms: fact.terms, authorizationId: fact.authorizationId };
    case "VoidRefused": {
      const { terms, authorizationId, refusal } = fact;
      return { orderId, status: "VOID_REFUSED", terms, authorizationId, refusal };
    }
    case "Voided":
      return {
        orderId,
        status: "VOIDED",
        voidedAmount: fact.voidedAmount,
        terms: fact.terms,
        authorizationId: fact.authorizationId,
      };
    default:
      return unreachable(fact);
  }
}

/** The call to the gateway that the payment waits for; undefined if it waits for none. */
export function nextCall(state: PaymentState): GatewayCall | undefined {
  const { orderId, status } = state;
  switch (status) {
    case "AUTHORIZING":
      return { kind: "authorise", orderId, idempotencyKey: `authorise-${orderId}`, terms: state.terms };
    case "VOIDING":
    case "VOID_REFUSED":
      return { kind: "void", orderId, idempotencyKey: `void-${orderId}`, terms: state.terms };
    case "NONE":
    case "NOTED":
    case "AUTHORIZED":
    case "DECLINED":
    case "VOIDED":
      return undefined;
    default:
      return unreachable(status);
  }
}

/** The event that publishes a fact; undefined if the fact concerns only payment. */
export function toEvent(orderId: string, fact: PaymentFact): Message | undefined {
  switch (fact.kind) {
    case "Authorized":
      return create(PaymentAuthorizedSchema, {
        orderId,
        amount: fact.terms.amount,
        authorizationId: fact.authorizationId,
      });
    case "Declined":
      return create(PaymentFailedSchema, { orderId, reason: PaymentFailed_Reason.DECLINED });
    case "Voided":
      return create(PaymentVoidedSchema, { orderId, amount: fact.voidedAmount });
    case "Noted":
    case "AuthorizationStarted":
    case "VoidStarted":
    case "VoidRefused":
      return undefined;
    default:
      return unreachable(fact);
  }
}
