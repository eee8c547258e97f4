/** What the events published for one order add up to. It must agree with the services' rows (promise I9). */
import type { SagaEvent } from "../../../proto/event-table.ts";
import type { Line } from "../../../services/inventory/domain.ts";
import { unreachable } from "../../../services/kit/errors.ts";
import { demand } from "./violation.ts";

/** The sum of an order's published events. An event counts once, however often the relay sends it. */
export interface EventSummary {
  readonly count: number;
  readonly final: "COMPLETED" | "FAILED" | undefined;
  readonly reserved: readonly Line[];
  readonly released: readonly Line[];
  readonly authorized: bigint | undefined;
  readonly declined: boolean;
  readonly voided: bigint | undefined;
}

/** More than any order needs. Reaching it means that services answer each other without end. */
const eventsPerOrderMax = 16;

export const noEvents: EventSummary = {
  count: 0,
  final: undefined,
  reserved: [],
  released: [],
  authorized: undefined,
  declined: false,
  voided: undefined,
};

/**
 * The summary after one more event was written to an outbox.
 * @throws Violation for a second event where an order may have only one.
 */
export function addEvent(before: EventSummary, event: SagaEvent): EventSummary {
  const summary = { ...before, count: before.count + 1 };
  demand(summary.count <= eventsPerOrderMax, `more than ${eventsPerOrderMax} events were published for one order`);
  switch (event.$typeName) {
    case "shop.order.v1.OrderPlaced":
    case "shop.order.v1.OrderCancelRequested":
    case "shop.inventory.v1.StockReservationFailed":
      return summary;
    case "shop.order.v1.OrderCompleted":
    case "shop.order.v1.OrderFailed":
      demand(summary.final === undefined, `I5: ${shortName(event)} is a second final event`);
      return { ...summary, final: event.$typeName === "shop.order.v1.OrderCompleted" ? "COMPLETED" : "FAILED" };
    case "shop.inventory.v1.StockReserved":
      return { ...summary, reserved: addLines(summary.reserved, event.lines) };
    case "shop.inventory.v1.StockReleased":
      return { ...summary, released: addLines(summary.released, event.lines) };
    case "shop.payment.v1.PaymentAuthorized":
      demand(summary.authorized === undefined, "I7: PaymentAuthorized was published twice");
      return { ...summary, authorized: event.amount?.minorUnits ?? 0n };
    case "shop.payment.v1.PaymentFailed":
      demand(!summary.declined, "I7: PaymentFailed was published twice");
      return { ...summary, declined: true };
    case "shop.payment.v1.PaymentVoided":
      demand(summary.voided === undefined, "I7: PaymentVoided was published twice");
      return { ...summary, voided: event.amount?.minorUnits ?? 0n };
    default:
      return unreachable(event);
  }
}

/** The last part of a message's full name, for example StockReserved. */
export function shortName({ $typeName }: { readonly $typeName: string }): string {
  return $typeName.slice($typeName.lastIndexOf(".") + 1);
}

/** True if both have the same quantity of every SKU, in any order. */
export function sameLines(a: readonly Line[], b: readonly Line[]): boolean {
  const [x, y] = [addLines(a, []), addLines(b, [])];
  return x.length === y.length && x.every((it, at) => it.sku === y[at]?.sku && it.quantity === y[at]?.quantity);
}

/** Sums the quantities of each SKU. The result is sorted by SKU, so that equal sums are equal values. */
function addLines(a: readonly Line[], b: readonly Line[]): readonly Line[] {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of [...a, ...b]) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  return Array.from(quantities, ([sku, quantity]) => ({ sku, quantity })).sort((x, y) => (x.sku < y.sku ? -1 : 1));
}
