/** Small wrong changes of the domain code. The exploration has to find each of them. */

/** One change: `from`, which the file holds exactly once, becomes `to`. */
export interface Mutant {
  readonly name: string;
  readonly service: "order" | "inventory" | "payment";
  readonly from: string;
  readonly to: string;
}

export const mutants: readonly Mutant[] = [
  // Order
  {
    name: "completes as soon as the stock is reserved",
    service: "order",
    from: `? [{ kind: "StockWasReserved" }] : []`,
    to: `? [{ kind: "StockWasReserved" }, { kind: "Completed" }] : []`,
  },
  {
    name: "completes while it compensates",
    service: "order",
    from: `return state.status === "STOCK_RESERVED" ? [{ kind: "Completed" }] : [];`,
    to: `return state.status === "STOCK_RESERVED" || state.status === "COMPENSATING" ? [{ kind: "Completed" }] : [];`,
  },
  {
    name: "goes on with an order that compensates",
    service: "order",
    from: `return state.status === "PENDING" ? [{ kind: "StockWasReserved" }] : [];`,
    to: `return isFinal(state.status) ? [] : [{ kind: "StockWasReserved" }];`,
  },
  {
    name: "FAILED before payment has answered",
    service: "order",
    from: `return state.awaiting.payment`,
    to: `return false`,
  },
  {
    name: "FAILED before inventory has answered",
    service: "order",
    from: `return state.awaiting.stock`,
    to: `return false`,
  },
  {
    name: "forgets that inventory has answered",
    service: "order",
    from: `awaiting: { ...state.awaiting, stock: false }`,
    to: `awaiting: { ...state.awaiting }`,
  },
  {
    name: "forgets that payment has answered",
    service: "order",
    from: `awaiting: { ...state.awaiting, payment: false }`,
    to: `awaiting: { ...state.awaiting }`,
  },
  {
    name: "FAILED at once on a declined payment",
    service: "order",
    from: `[{ kind: "CompensationStarted", reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }]`,
    to: `[{ kind: "Failed", reason: "PAYMENT_DECLINED" }]`,
  },
  {
    name: "ignores a declined payment",
    service: "order",
    from: `[{ kind: "CompensationStarted", reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }]`,
    to: `[]`,
  },
  {
    name: "waits for a void of a declined payment",
    service: "order",
    from: `reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }`,
    to: `reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: true } }`,
  },
  {
    name: "a cancel waits for the stock alone",
    service: "order",
    from: `reason, awaiting: { stock: true, payment: true } }`,
    to: `reason, awaiting: { stock: true, payment: false } }`,
  },
  {
    name: "a cancel waits for the payment alone",
    service: "order",
    from: `reason, awaiting: { stock: true, payment: true } }`,
    to: `reason, awaiting: { stock: false, payment: true } }`,
  },
  {
    name: "a cancel is told to nobody",
    service: "order",
    from: `return fact.awaiting.payment`,
    to: `return false`,
  },
  {
    name: "a second cancel overwrites the failure reason",
    service: "order",
    from: `return state.status === "PENDING" || state.status === "STOCK_RESERVED"`,
    to: `return !isFinal(state.status)`,
  },
  {
    name: "a completed order can be cancelled",
    service: "order",
    from: `return state.status === "PENDING" || state.status === "STOCK_RESERVED"`,
    to: `return state.status !== "COMPENSATING" && state.status !== "FAILED"`,
  },
  {
    name: "a cancel is ignored once the stock is reserved",
    service: "order",
    from: `return state.status === "PENDING" || state.status === "STOCK_RESERVED"`,
    to: `return state.status === "PENDING"`,
  },
  {
    name: "OUT_OF_STOCK ends a compensation that is under way",
    service: "order",
    from: `return state.status === "PENDING" ? [{ kind: "Failed", reason: "OUT_OF_STOCK" }] : [];`,
    to: `return isFinal(state.status) ? [] : [{ kind: "Failed", reason: "OUT_OF_STOCK" }];`,
  },
  {
    name: "the failure reason is lost on the way to FAILED",
    service: "order",
    from: `status: "FAILED", failureReason: fact.reason }`,
    to: `status: "FAILED", failureReason: "TIMED_OUT" }`,
  },
  {
    name: "the completion is told to nobody",
    service: "order",
    from: `return create(OrderCompletedSchema, { orderId });`,
    to: `return undefined;`,
  },

  // Inventory
  {
    name: "an order that comes again is reserved again",
    service: "inventory",
    from: `if (reservation.status !== "NONE") return [];`,
    to: `if (reservation.status === "HELD") return [];`,
  },
  {
    name: "an order that comes again while it is held is decided again",
    service: "inventory",
    from: `if (reservation.status !== "NONE") return [];`,
    to: `if (reservation.status !== "NONE" && reservation.status !== "HELD") return [];`,
  },
  {
    name: "reserves some of the lines only",
    service: "inventory",
    from: `[{ kind: "Reserved", lines }]`,
    to: `[{ kind: "Reserved", lines: lines.slice(1) }]`,
  },
  {
    name: "reserves where some lines are short",
    service: "inventory",
    from: `return shortages.length === 0 ?`,
    to: `return shortages.length < lines.length ?`,
  },
  {
    name: "sells one piece more than there is",
    service: "inventory",
    from: `return quantity > available ?`,
    to: `return quantity > available + 1 ?`,
  },
  {
    name: "never sells the last piece",
    service: "inventory",
    from: `return quantity > available ?`,
    to: `return quantity >= available ?`,
  },
  {
    name: "a declined payment releases nothing",
    service: "inventory",
    from: `[{ kind: "Released", lines: reservation.lines }]`,
    to: `[]`,
  },
  {
    name: "a declined payment releases what a cancel has released",
    service: "inventory",
    from: `return reservation.status === "HELD" ? [{ kind: "Released"`,
    to: `return "lines" in reservation ? [{ kind: "Released"`,
  },
  {
    name: "a declined payment releases twice when it comes twice",
    service: "inventory",
    from: `return reservation.status === "HELD" ? [{ kind: "Released"`,
    to: `return reservation.status === "HELD" || reservation.status === "RELEASED" ? [{ kind: "Released"`,
  },
  {
    name: "sold twice when the completion comes twice",
    service: "inventory",
    from: `return reservation.status === "HELD" ? [{ kind: "Sold"`,
    to: `return "lines" in reservation ? [{ kind: "Sold"`,
  },
  {
    name: "what is sold stays held",
    service: "inventory",
    from: `move(stock, fact.lines, "held", "sold")`,
    to: `move(stock, fact.lines, "available", "sold")`,
  },
  {
    name: "a cancel releases nothing",
    service: "inventory",
    from: `return [{ kind: "Cancelled", lines: reservation.lines }];`,
    to: `return [{ kind: "Cancelled", lines: [] }];`,
  },
  {
    name: "a cancel releases again what a declined payment has released",
    service: "inventory",
    from: `        case "RELEASED":
          // Order waits`,
    to: `          return [{ kind: "Cancelled", lines: [] }];
        case "RELEASED":
          return [{ kind: "Cancelled", lines: reservation.lines }];
          // Order waits`,
  },
  {
    name: "a cancel is not answered where nothing is held",
    service: "inventory",
    from: `return [{ kind: "Cancelled", lines: [] }];`,
    to: `return [];`,
  },
  {
    name: "a cancel is not remembered",
    service: "inventory",
    from: `reservation: { orderId, status: "CANCELLED", lines },`,
    to: `reservation: { orderId, status: "NONE" },`,
  },
  {
    name: "cancelled, and the pieces stay held",
    service: "inventory",
    from: `reservation: { orderId, status: "CANCELLED", lines },
        stock: move(stock, fact.lines, "held", "available"),`,
    to: `reservation: { orderId, status: "CANCELLED", lines },
        stock,`,
  },
  {
    name: "a release is told to nobody",
    service: "inventory",
    from: `    case "Released":
    case "Cancelled":
      return create`,
    to: `    case "Released":
      return undefined;
    case "Cancelled":
      return create`,
  },
  {
    name: "the levels of what is held are not read",
    service: "inventory",
    from: `return reservation.status === "HELD" ? reservation.lines.map(({ sku }) => sku) : [];`,
    to: `return [];`,
  },

  // Payment
  {
    name: "charges before the stock is reserved",
    service: "payment",
    from: `return { orderId, status: "NOTED", terms: fact.terms };`,
    to: `return { orderId, status: "AUTHORIZING", terms: fact.terms };`,
  },
  {
    name: "authorises another amount than the total",
    service: "payment",
    from: `terms: { amount: { currencyCode, minorUnits }, paymentMethod }`,
    to: `terms: { amount: { currencyCode, minorUnits: (minorUnits / 100n) * 100n }, paymentMethod }`,
  },
  {
    name: "a new idempotency key for each attempt",
    service: "payment",
    from: `idempotencyKey: \`authorise-\${orderId}\``,
    to: `idempotencyKey: \`authorise-\${orderId}-\${crypto.randomUUID()}\``,
  },
  {
    name: "one idempotency key for authorise and void",
    service: "payment",
    from: `idempotencyKey: \`void-\${orderId}\``,
    to: `idempotencyKey: \`authorise-\${orderId}\``,
  },
  {
    name: "one idempotency key for all orders",
    service: "payment",
    from: `idempotencyKey: \`authorise-\${orderId}\``,
    to: "idempotencyKey: `authorise`",
  },
  {
    name: "a declined payment counts as authorised",
    service: "payment",
    from: `[{ kind: "Declined", terms: state.terms }]`,
    to: `[{ kind: "Authorized", terms: state.terms, authorizationId: "none" }]`,
  },
  {
    name: "an unknown outcome counts as declined",
    service: "payment",
    from: `case "GatewayUnknown":
      return [];`,
    to: `case "GatewayUnknown":
      return state.status === "AUTHORIZING" ? [{ kind: "Declined", terms: state.terms }] : [];`,
  },
  {
    name: "an unknown outcome counts as voided",
    service: "payment",
    from: `case "GatewayUnknown":
      return [];`,
    to: `case "GatewayUnknown":
      return state.status === "VOIDING"
        ? [{ kind: "Voided", voidedAmount: state.terms.amount, terms: state.terms, authorizationId: undefined }]
        : [];`,
  },
  {
    name: "a late authorise is accepted in VOIDING",
    service: "payment",
    from: `// In VOIDING it comes too late: the void will take it back.
      return state.status === "AUTHORIZING"`,
    to: `return state.status === "AUTHORIZING" || state.status === "VOIDING"`,
  },
  {
    name: "a late decline is accepted in VOIDING",
    service: "payment",
    from: `case "GatewayVoided":
      return state.status === "AUTHORIZING"`,
    to: `case "GatewayVoided":
      return state.status === "AUTHORIZING" || state.status === "VOIDING"`,
  },
  {
    name: "the answers to two calls at once are both told",
    service: "payment",
    from: `// In VOIDING it comes too late: the void will take it back.
      return state.status === "AUTHORIZING"`,
    to: `return state.status === "AUTHORIZING" || state.status === "AUTHORIZED"`,
  },
  {
    name: "a second confirmation of the void is told too",
    service: "payment",
    from: `if (state.status !== "VOIDING" && state.status !== "VOID_REFUSED") return [];`,
    to: `if (!state.status.startsWith("VOID") || state.terms === undefined) return [];`,
  },
  {
    name: "a confirmation that comes after a refusal is not heard",
    service: "payment",
    from: `if (state.status !== "VOIDING" && state.status !== "VOID_REFUSED") return [];`,
    to: `if (state.status !== "VOIDING") return [];`,
  },
  {
    name: "a void that was refused is not asked for again",
    service: "payment",
    from: `    case "VOID_REFUSED":
      return { kind: "void", orderId, idempotencyKey: \`void-\${orderId}\` };`,
    to: `      return { kind: "void", orderId, idempotencyKey: \`void-\${orderId}\` };
    case "VOID_REFUSED":
      return undefined;`,
  },
  {
    name: "a refused void counts as voided",
    service: "payment",
    from: `return [{ kind: "VoidRefused", terms, authorizationId, refusal: message.refusal }];`,
    to: `return [{ kind: "Voided", voidedAmount: terms.amount, terms, authorizationId }];`,
  },
  {
    name: "voided without asking the gateway, while it is being asked",
    service: "payment",
    from: `return [{ kind: "VoidStarted", terms: state.terms, authorizationId: undefined }];`,
    to: `return [{ kind: "Voided", voidedAmount: { ...state.terms.amount, minorUnits: 0n }, terms: state.terms, authorizationId: undefined }];`,
  },
  {
    name: "voided without asking the gateway, once it has authorised",
    service: "payment",
    from: `return [{ kind: "VoidStarted", terms: state.terms, authorizationId: state.authorizationId }];`,
    to: `return [{ kind: "Voided", voidedAmount: state.terms.amount, terms: state.terms, authorizationId: state.authorizationId }];`,
  },
  {
    name: "the void is never called",
    service: "payment",
    from: `return { kind: "void", orderId, idempotencyKey: \`void-\${orderId}\` };`,
    to: `return undefined;`,
  },
  {
    name: "the authorise is never called",
    service: "payment",
    from: `return { kind: "authorise", orderId, idempotencyKey: \`authorise-\${orderId}\`, terms: state.terms };`,
    to: `return undefined;`,
  },
  {
    name: "tells that the whole amount was voided, whatever it was",
    service: "payment",
    from: `minorUnits: message.voidedMinorUnits`,
    to: `minorUnits: terms.amount.minorUnits`,
  },
  {
    name: "a cancel is not answered after a decline",
    service: "payment",
    from: `    case "AUTHORIZING":
    case "DECLINED":
      // The gateway`,
    to: `    case "DECLINED":
      return [];
    case "AUTHORIZING":
      // The gateway`,
  },
  {
    name: "a cancel is not answered before the intent",
    service: "payment",
    from: `    case "NOTED":
      return [
        {`,
    to: `    case "NOTED":
      return [];
      return [
        {`,
  },
  {
    name: "a cancel is answered again when it comes again",
    service: "payment",
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
    name: "a cancel is not remembered, and StockReserved charges",
    service: "payment",
    from: `return state.status === "NOTED" ? [{ kind: "AuthorizationStarted"`,
    to: `return state.status === "NOTED" || (state.status === "VOIDED" && state.terms) ? [{ kind: "AuthorizationStarted"`,
  },
  {
    name: "StockReserved that comes again authorises again",
    service: "payment",
    from: `return state.status === "NOTED" ? [{ kind: "AuthorizationStarted"`,
    to: `return state.status === "NOTED" || state.status === "AUTHORIZED" ? [{ kind: "AuthorizationStarted"`,
  },
  {
    name: "StockReserved that comes again tries a declined payment again",
    service: "payment",
    from: `return state.status === "NOTED" ? [{ kind: "AuthorizationStarted"`,
    to: `return state.status === "NOTED" || state.status === "DECLINED" ? [{ kind: "AuthorizationStarted"`,
  },
  {
    name: "an order that comes again is noted again",
    service: "payment",
    from: `if (state.status !== "NONE") return [];`,
    to: `if (state.status === "NOTED") return [];`,
  },
];
