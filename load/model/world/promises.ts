/** What the model checks: promises that hold in every state, and promises that hold once nothing is left to do. */
import type { OrderPlaced } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import type { StockLevels } from "../../../services/inventory/domain.ts";
import type { FailureReason, OrderState } from "../../../services/order/domain.ts";
import { serviceNames } from "../../../services/stack/services.ts";
import type { EventSummary } from "./event-summary.ts";
import { type Account, liveAuthorizations } from "./gateway.ts";
import { type Rows, serviceModels } from "./services.ts";
import { demand, Violation } from "./violation.ts";

/** Everything that the services, the gateway and the topic hold about one order at one moment. */
export interface OrderSnapshot {
  readonly placed: OrderPlaced;
  readonly rows: Rows;
  readonly account: Account;
  readonly events: EventSummary;
}

/** How an order ended: COMPLETED, or the reason why it FAILED. */
export type Outcome = "COMPLETED" | FailureReason;

/** The order's outcome; undefined while it has none. */
export function outcomeOf(order: OrderState): Outcome | undefined {
  if (order.status === "FAILED") return order.failureReason;
  return order.status === "COMPLETED" ? order.status : undefined;
}

/**
 * Checks what must hold for an order in every state.
 * @throws Violation
 */
export function checkOrder(order: OrderSnapshot): void {
  const live = liveAuthorizations(order.account).length;
  demand(live <= 1, `I3: the gateway holds ${live} authorisations`);
  for (const service of serviceNames) serviceModels[service].check(order);
}

type EndStatuses = { readonly [Name in Exclude<keyof Rows, "order">]: Rows[Name]["status"] };

/** The status of an order's row in the other services at the end, by the outcome of the order. */
const endStatuses: Readonly<Record<Outcome, EndStatuses>> = {
  COMPLETED: { inventory: "SOLD", payment: "AUTHORIZED" },
  OUT_OF_STOCK: { inventory: "REFUSED", payment: "NOTED" },
  PAYMENT_DECLINED: { inventory: "RELEASED", payment: "DECLINED" },
  TIMED_OUT: { inventory: "CANCELLED", payment: "VOIDED" },
  CANCELLED: { inventory: "CANCELLED", payment: "VOIDED" },
};

/**
 * Checks what must hold for an order once nothing is left to do for it.
 * @throws Violation
 */
export function checkEnd({ rows }: OrderSnapshot): void {
  const { order, ...others } = rows;
  const found = Object.entries(others).map(([service, { status }]) => `${service} ${status}`);
  const outcome = outcomeOf(order);
  if (outcome === undefined) {
    throw new Violation(`I4: nothing is left to do, but the order is ${order.status} (${found.join(", ")})`);
  }
  const expected = Object.entries(endStatuses[outcome]).map(([service, status]) => `${service} ${status}`);
  demand(
    found.join() === expected.join(),
    `I5: a ${outcome} order ended with ${found.join(", ")} instead of ${expected.join(", ")}`,
  );
}

/**
 * Checks the stock against all orders (promise I2). It must hold in every state.
 * @throws Violation
 */
export function checkStock(initial: StockLevels, stock: StockLevels, reservations: readonly Rows["inventory"][]): void {
  for (const [sku, { available, held, sold }] of stock) {
    const heldByOrders = piecesOf(sku, "HELD", reservations);
    const soldToOrders = piecesOf(sku, "SOLD", reservations);
    let problem: string | undefined;
    if (available < 0 || held < 0 || sold < 0) problem = "a count is negative";
    else if (available + held + sold !== (initial.get(sku)?.available ?? 0)) problem = "the total has changed";
    else if (held !== heldByOrders) problem = `the orders hold ${heldByOrders}`;
    else if (sold !== soldToOrders) problem = `the orders bought ${soldToOrders}`;
    if (problem === undefined) continue;
    throw new Violation(`I2: ${sku} has available ${available}, held ${held}, sold ${sold}: ${problem}`);
  }
}

function piecesOf(sku: string, status: "HELD" | "SOLD", reservations: readonly Rows["inventory"][]): number {
  let sum = 0;
  for (const reservation of reservations) {
    if (reservation.status !== status) continue;
    for (const line of reservation.lines) if (line.sku === sku) sum += line.quantity;
  }
  return sum;
}
