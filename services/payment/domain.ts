/**
 * An order's payment, as pure functions: what a message means for it, what it is after that, and which call to the
 * payment gateway it waits for. The gateway's answers are messages like any other. No I/O, no clock, no randomness.
 * The table of events is proto/event-table.ts.
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
  /** ISO 4217; XXX where nothing is known of any currency. */
  readonly currencyCode: string;
  readonly minorUnits: bigint;
}

/** What is to be paid, and with what. */
export interface Terms {
  readonly amount: Amount;
  readonly paymentMethod: string;
}

/** Where a payment stands. */
export type PaymentState = { readonly orderId: string } & (
  | { readonly status: "NONE" }
  | { readonly status: "NOTED"; readonly terms: Terms }
  /** The intent: from here on the gateway may have charged. */
  | { readonly status: "AUTHORIZING"; readonly terms: Terms }
  | { readonly status: "AUTHORIZED"; readonly terms: Terms; readonly authorizationId: string }
  | { readonly status: "DECLINED"; readonly terms: Terms }
  | { readonly status: "VOIDING"; readonly terms: Terms; readonly authorizationId: string | undefined }
  /** The gateway refuses to void: it is asked again all the same, and somebody has to look. */
  | {
      readonly status: "VOID_REFUSED";
      readonly terms: Terms;
      readonly authorizationId: string | undefined;
      /** What it said last. */
      readonly refusal: string;
    }
  /** The cancel is remembered: an order that is heard of later is not charged. */
  | {
      readonly status: "VOIDED";
      readonly voidedAmount: Amount;
      /** Undefined where the order was cancelled before it was heard of. */
      readonly terms: Terms | undefined;
      readonly authorizationId: string | undefined;
    }
);

export type PaymentStatus = PaymentState["status"];

/** What the payment gateway says. */
export type GatewayOutcome =
  | { readonly $typeName: "GatewayAuthorized"; readonly authorizationId: string }
  | { readonly $typeName: "GatewayDeclined" }
  /** An authorise that came after a void. */
  | { readonly $typeName: "GatewayVoided" }
  | { readonly $typeName: "GatewayVoidConfirmed"; readonly voidedMinorUnits: bigint }
  /** It has not voided, and says that it will not. */
  | { readonly $typeName: "GatewayVoidRefused"; readonly refusal: string }
  /** It may have done it or not: ask again with the same key. */
  | { readonly $typeName: "GatewayUnknown" };

/** What can happen to a payment. */
export type PaymentMessage = HandledBy<"payment"> | GatewayOutcome;

/** What did happen. {@link toEvent} says which facts the other services hear of. */
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

/** A call to the payment gateway. Its key depends on the order alone, so that however often it is asked, it is once. */
export type GatewayCall = { readonly orderId: string; readonly idempotencyKey: string } & (
  | { readonly kind: "authorise"; readonly terms: Terms }
  | { readonly kind: "void" }
);

/** Where every order starts that payment has not heard of. */
export function noPayment(orderId: string): PaymentState {
  return { orderId, status: "NONE" };
}

/**
 * What a message means for a payment. Late, doubled and out-of-order messages mean nothing.
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
      // In VOIDING it comes too late: the void will take it back.
      return state.status === "AUTHORIZING"
        ? [{ kind: "Authorized", terms: state.terms, authorizationId: message.authorizationId }]
        : [];
    case "GatewayDeclined":
    case "GatewayVoided":
      return state.status === "AUTHORIZING" ? [{ kind: "Declined", terms: state.terms }] : [];
    case "GatewayVoidRefused": {
      const isNews =
        state.status === "VOIDING" || (state.status === "VOID_REFUSED" && state.refusal !== message.refusal);
      if (!isNews) return [];
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
      // The gateway was asked, or may have been: only it knows that nothing is charged, nor will be by a late request.
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

/** The call to the gateway that the payment waits for; undefined where it waits for none. */
export function nextCall(state: PaymentState): GatewayCall | undefined {
  const { orderId, status } = state;
  switch (status) {
    case "AUTHORIZING":
      return { kind: "authorise", orderId, idempotencyKey: `authorise-${orderId}`, terms: state.terms };
    case "VOIDING":
    case "VOID_REFUSED":
      return { kind: "void", orderId, idempotencyKey: `void-${orderId}` };
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

/** The event that tells the other services of a fact; undefined for what is payment's own business. */
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
