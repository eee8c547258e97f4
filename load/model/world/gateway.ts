/**
 * The payment gateway as a pure function: what a call does to one order's account, and what the gateway answers.
 * services/stack/fake-gateway.ts implements the same rules in SQL; gateway.int.test.ts compares the two.
 */
import { unreachable } from "../../../services/kit/errors.ts";
import type { GatewayCall, GatewayOutcome } from "../../../services/payment/domain.ts";
import { demand } from "./violation.ts";

interface Authorization {
  readonly key: string;
  /** Everything that was sent with the key. The gateway refuses a key that comes back with other parameters. */
  readonly parameters: string;
  readonly amount: bigint;
  readonly status: "AUTHORIZED" | "DECLINED" | "VOIDED";
}

/** The gateway's ledger for one order. It is keyed by idempotency key: two keys are two charges. */
export interface Account {
  readonly authorizations: readonly Authorization[];
  /** A void is terminal: the gateway authorises nothing for the order after it. */
  readonly void: { readonly key: string; readonly amount: bigint } | undefined;
}

/** A call's effect on the account, and the answer to it. */
export interface Answered {
  readonly account: Account;
  readonly outcome: GatewayOutcome;
}

export const emptyAccount: Account = { authorizations: [], void: undefined };

/** The answer to a void that the gateway refuses. The account does not change. */
export const voidRefused: GatewayOutcome = { $typeName: "GatewayVoidRefused", refusal: "answered 422 to void" };

/** The authorisations that hold the payer's money. */
export function liveAuthorizations(account: Account): Account["authorizations"] {
  return account.authorizations.filter(({ status }) => status === "AUTHORIZED");
}

/** True if the gateway would ask the payer's bank: only then does `accepts` make a difference in {@link answer}. */
export function asksBank(account: Account, call: GatewayCall): boolean {
  return (
    call.kind === "authorise" &&
    account.void === undefined &&
    account.authorizations.every(({ key }) => key !== call.idempotencyKey)
  );
}

/**
 * The gateway receives a call.
 * @param accepts what the payer's bank says, if the gateway asks it.
 */
export function answer(account: Account, call: GatewayCall, accepts: boolean): Answered {
  switch (call.kind) {
    case "authorise":
      return answerAuthorise(account, call, accepts);
    case "void":
      return answerVoid(account, call);
    default:
      return unreachable(call.kind);
  }
}

function answerAuthorise(account: Account, call: GatewayCall, accepts: boolean): Answered {
  const { amount, paymentMethod } = call.terms;
  const key = call.idempotencyKey;
  const parameters = [call.orderId, amount.minorUnits, amount.currencyCode, paymentMethod].join(" ");
  const recorded = account.authorizations.find((it) => it.key === key);
  const isMisused = account.void?.key === key || (recorded !== undefined && recorded.parameters !== parameters);
  if (isMisused) return { account, outcome: { $typeName: "GatewayUnknown" } };
  if (recorded !== undefined) return { account, outcome: outcomeOf(recorded) };
  if (account.void !== undefined) return { account, outcome: { $typeName: "GatewayVoided" } };
  const authorization: Authorization = {
    key,
    parameters,
    amount: amount.minorUnits,
    status: accepts ? "AUTHORIZED" : "DECLINED",
  };
  return {
    account: { ...account, authorizations: [...account.authorizations, authorization] },
    outcome: outcomeOf(authorization),
  };
}

function outcomeOf({ key, status }: Authorization): GatewayOutcome {
  switch (status) {
    case "AUTHORIZED":
      return { $typeName: "GatewayAuthorized", authorizationId: `of-${key}` };
    case "DECLINED":
      return { $typeName: "GatewayDeclined" };
    case "VOIDED":
      return { $typeName: "GatewayVoided" };
    default:
      return unreachable(status);
  }
}

function answerVoid(account: Account, { idempotencyKey: key }: GatewayCall): Answered {
  const isMisused = account.authorizations.some((it) => it.key === key);
  if (isMisused) return { account, outcome: voidRefused };
  if (account.void !== undefined) {
    return { account, outcome: { $typeName: "GatewayVoidConfirmed", voidedMinorUnits: account.void.amount } };
  }
  const amount = liveAuthorizations(account).reduce((sum, it) => sum + it.amount, 0n);
  const authorizations = account.authorizations.map(
    (it): Authorization => (it.status === "AUTHORIZED" ? { ...it, status: "VOIDED" } : it),
  );
  return {
    account: { authorizations, void: { key, amount } },
    outcome: { $typeName: "GatewayVoidConfirmed", voidedMinorUnits: amount },
  };
}

/** The idempotency keys in use, each with the order that uses it. */
export class IdempotencyKeys {
  readonly #orderOf = new Map<string, string>();

  /** Notes that a call is made for the order. @throws Violation if its key or its order id belongs to another order. */
  claim({ idempotencyKey, orderId: calledFor }: GatewayCall, orderId: string): void {
    const owner = this.#orderOf.get(idempotencyKey) ?? orderId;
    demand(owner === orderId && calledFor === orderId, "I3: two orders use the same idempotency key");
    this.#orderOf.set(idempotencyKey, orderId);
  }
}
