/** Mutants of services/order/domain.ts. */
import type { ServiceMutant } from "./mutants.ts";

export const mutants: readonly ServiceMutant[] = [
  {
    name: "completes an order as soon as its stock is reserved",
    from: `? [{ kind: "StockWasReserved" }] : []`,
    to: `? [{ kind: "StockWasReserved" }, { kind: "Completed" }] : []`,
  },
  {
    name: "completes an order that is compensating",
    from: `return state.status === "STOCK_RESERVED" ? [{ kind: "Completed" }] : [];`,
    to: `return state.status === "STOCK_RESERVED" || state.status === "COMPENSATING" ? [{ kind: "Completed" }] : [];`,
  },
  {
    name: "moves a compensating order to STOCK_RESERVED",
    from: `return state.status === "PENDING" ? [{ kind: "StockWasReserved" }] : [];`,
    to: `return isFinal(state.status) ? [] : [{ kind: "StockWasReserved" }];`,
  },
  {
    name: "fails an order before payment has answered",
    from: `return state.awaiting.payment`,
    to: `return false`,
  },
  {
    name: "fails an order before inventory has answered",
    from: `return state.awaiting.stock`,
    to: `return false`,
  },
  {
    name: "forgets that inventory has answered",
    from: `awaiting: { ...state.awaiting, stock: false }`,
    to: `awaiting: { ...state.awaiting }`,
  },
  {
    name: "forgets that payment has answered",
    from: `awaiting: { ...state.awaiting, payment: false }`,
    to: `awaiting: { ...state.awaiting }`,
  },
  {
    name: "fails an order at once when its payment is declined",
    from: `[{ kind: "CompensationStarted", reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }]`,
    to: `[{ kind: "Failed", reason: "PAYMENT_DECLINED" }]`,
  },
  {
    name: "ignores a declined payment",
    from: `[{ kind: "CompensationStarted", reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }]`,
    to: `[]`,
  },
  {
    name: "waits for the void of a declined payment",
    from: `reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: false } }`,
    to: `reason: "PAYMENT_DECLINED", awaiting: { stock: true, payment: true } }`,
  },
  {
    name: "waits only for inventory after a cancel",
    from: `reason, awaiting: { stock: true, payment: true } }`,
    to: `reason, awaiting: { stock: true, payment: false } }`,
  },
  {
    name: "waits only for payment after a cancel",
    from: `reason, awaiting: { stock: true, payment: true } }`,
    to: `reason, awaiting: { stock: false, payment: true } }`,
  },
  {
    name: "publishes no event for a cancel",
    from: `return fact.awaiting.payment`,
    to: `return false`,
  },
  {
    name: "lets a second cancel overwrite the failure reason",
    from: `return state.status === "PENDING" || state.status === "STOCK_RESERVED"`,
    to: `return !isFinal(state.status)`,
  },
  {
    name: "cancels a completed order",
    from: `return state.status === "PENDING" || state.status === "STOCK_RESERVED"`,
    to: `return state.status !== "COMPENSATING" && state.status !== "FAILED"`,
  },
  {
    name: "ignores a cancel once the stock is reserved",
    from: `return state.status === "PENDING" || state.status === "STOCK_RESERVED"`,
    to: `return state.status === "PENDING"`,
  },
  {
    name: "lets OUT_OF_STOCK end a compensation in progress",
    from: `return state.status === "PENDING" ? [{ kind: "Failed", reason: "OUT_OF_STOCK" }] : [];`,
    to: `return isFinal(state.status) ? [] : [{ kind: "Failed", reason: "OUT_OF_STOCK" }];`,
  },
  {
    name: "always fails with the reason TIMED_OUT",
    from: `status: "FAILED", failureReason: fact.reason }`,
    to: `status: "FAILED", failureReason: "TIMED_OUT" }`,
  },
  {
    name: "publishes no event for a completion",
    from: `return create(OrderCompletedSchema, { orderId });`,
    to: `return undefined;`,
  },
];
