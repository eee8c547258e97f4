/** Mutants of services/payment/domain.ts. */
import type { ServiceMutant } from "./mutants.ts";

export const mutants: readonly ServiceMutant[] = [
  {
    name: "charges before the stock is reserved",
    from: `return { orderId, status: "NOTED", terms: fact.terms };`,
    to: `return { orderId, status: "AUTHORIZING", terms: fact.terms };`,
  },
  {
    name: "authorises a rounded amount instead of the total",
    from: `terms: { amount: { currencyCode, minorUnits }, paymentMethod }`,
    to: `terms: { amount: { currencyCode, minorUnits: (minorUnits / 100n) * 100n }, paymentMethod }`,
  },
  {
    name: "uses a new idempotency key for each attempt",
    from: `idempotencyKey: \`authorise-\${orderId}\``,
    to: `idempotencyKey: \`authorise-\${orderId}-\${crypto.randomUUID()}\``,
  },
  {
    name: "uses one idempotency key for authorise and void",
    from: `idempotencyKey: \`void-\${orderId}\``,
    to: `idempotencyKey: \`authorise-\${orderId}\``,
  },
  {
    name: "uses one idempotency key for all orders",
    from: `idempotencyKey: \`authorise-\${orderId}\``,
    to: "idempotencyKey: `authorise`",
  },
  {
    name: "treats a declined payment as authorised",
    from: `[{ kind: "Declined", terms: state.terms }]`,
    to: `[{ kind: "Authorized", terms: state.terms, authorizationId: "none" }]`,
  },
  {
    name: "treats an unknown outcome as declined",
    from: `case "GatewayUnknown":
      return [];`,
    to: `case "GatewayUnknown":
      return state.status === "AUTHORIZING" ? [{ kind: "Declined", terms: state.terms }] : [];`,
  },
  {
    name: "treats an unknown outcome as voided",
    from: `case "GatewayUnknown":
      return [];`,
    to: `case "GatewayUnknown":
      return state.status === "VOIDING"
        ? [{ kind: "Voided", voidedAmount: state.terms.amount, terms: state.terms, authorizationId: undefined }]
        : [];`,
  },
  {
    name: "accepts a late authorisation while voiding",
    from: `// In VOIDING it is too late: the void cancels this authorisation.
      return state.status === "AUTHORIZING"`,
    to: `return state.status === "AUTHORIZING" || state.status === "VOIDING"`,
  },
  {
    name: "accepts a late decline while voiding",
    from: `case "GatewayVoided":
      return state.status === "AUTHORIZING"`,
    to: `case "GatewayVoided":
      return state.status === "AUTHORIZING" || state.status === "VOIDING"`,
  },
  {
    name: "publishes the answers to two concurrent calls",
    from: `// In VOIDING it is too late: the void cancels this authorisation.
      return state.status === "AUTHORIZING"`,
    to: `return state.status === "AUTHORIZING" || state.status === "AUTHORIZED"`,
  },
  {
    name: "publishes a second confirmation of the void",
    from: `if (state.status !== "VOIDING" && state.status !== "VOID_REFUSED") return [];`,
    to: `if (!state.status.startsWith("VOID") || state.terms === undefined) return [];`,
  },
  {
    name: "ignores a confirmation after a refused void",
    from: `if (state.status !== "VOIDING" && state.status !== "VOID_REFUSED") return [];`,
    to: `if (state.status !== "VOIDING") return [];`,
  },
  {
    name: "does not retry a refused void",
    from: `    case "VOID_REFUSED":
      return { kind: "void", orderId, idempotencyKey: \`void-\${orderId}\`, terms: state.terms };`,
    to: `      return { kind: "void", orderId, idempotencyKey: \`void-\${orderId}\`, terms: state.terms };
    case "VOID_REFUSED":
      return undefined;`,
  },
  {
    name: "treats a refused void as voided",
    from: `return [{ kind: "VoidRefused", terms, authorizationId, refusal: message.refusal }];`,
    to: `return [{ kind: "Voided", voidedAmount: terms.amount, terms, authorizationId }];`,
  },
  {
    name: "voids without asking the gateway before the authorisation is known",
    from: `return [{ kind: "VoidStarted", terms: state.terms, authorizationId: undefined }];`,
    to: `return [{ kind: "Voided", voidedAmount: { ...state.terms.amount, minorUnits: 0n }, terms: state.terms, authorizationId: undefined }];`,
  },
  {
    name: "voids without asking the gateway after the authorisation",
    from: `return [{ kind: "VoidStarted", terms: state.terms, authorizationId: state.authorizationId }];`,
    to: `return [{ kind: "Voided", voidedAmount: state.terms.amount, terms: state.terms, authorizationId: state.authorizationId }];`,
  },
  {
    name: "never calls void",
    from: `return { kind: "void", orderId, idempotencyKey: \`void-\${orderId}\`, terms: state.terms };`,
    to: `return undefined;`,
  },
  {
    name: "never calls authorise",
    from: `return { kind: "authorise", orderId, idempotencyKey: \`authorise-\${orderId}\`, terms: state.terms };`,
    to: `return undefined;`,
  },
  {
    name: "reports the whole amount as voided, whatever the gateway voided",
    from: `minorUnits: message.voidedMinorUnits`,
    to: `minorUnits: terms.amount.minorUnits`,
  },
  {
    name: "does not answer a cancel after a decline",
    from: `    case "AUTHORIZING":
    case "DECLINED":
      // The gateway`,
    to: `    case "DECLINED":
      return [];
    case "AUTHORIZING":
      // The gateway`,
  },
  {
    name: "does not answer a cancel before the authorisation has started",
    from: `    case "NOTED":
      return [
        {`,
    to: `    case "NOTED":
      return [];
      return [
        {`,
  },
  {
    name: "answers a redelivered cancel again",
    from: `    case "VOIDING":
    case "VOID_REFUSED":
    case "VOIDED":
      return [];
    default:
      return unreachable(state);
  }
}`,
    to: `    case "VOIDING":
    case "VOID_REFUSED":
      return [];
    case "VOIDED":
      return [{ ...state, kind: "Voided" }];
  }
}`,
  },
  {
    name: "forgets a cancel and charges on StockReserved",
    from: `return state.status === "NOTED" ? [{ kind: "AuthorizationStarted"`,
    to: `return state.status === "NOTED" || (state.status === "VOIDED" && state.terms) ? [{ kind: "AuthorizationStarted"`,
  },
  {
    name: "authorises again if StockReserved is redelivered",
    from: `return state.status === "NOTED" ? [{ kind: "AuthorizationStarted"`,
    to: `return state.status === "NOTED" || state.status === "AUTHORIZED" ? [{ kind: "AuthorizationStarted"`,
  },
  {
    name: "retries a declined payment if StockReserved is redelivered",
    from: `return state.status === "NOTED" ? [{ kind: "AuthorizationStarted"`,
    to: `return state.status === "NOTED" || state.status === "DECLINED" ? [{ kind: "AuthorizationStarted"`,
  },
  {
    name: "notes a redelivered order again",
    from: `if (state.status !== "NONE") return [];`,
    to: `if (state.status === "NOTED") return [];`,
  },
];
