/** Turns a request into a new order: checks the request, adds prices and the total. Pure, like domain.ts. */
import { create } from "@bufbuild/protobuf";
import { type OrderPlaced, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { DomainError } from "../kit/errors.ts";

/** An amount of money in minor units of its currency, such as cents. */
export interface Price {
  readonly currencyCode: string;
  readonly minorUnits: bigint;
}

export interface OrderLine {
  readonly sku: string;
  readonly quantity: number;
  readonly unitPrice: Price;
}

/** What a client asks for. `owner` is empty until there is authentication. */
export interface PlacementRequest {
  readonly owner: string;
  readonly requestId: string;
  readonly lines: readonly { readonly sku: string; readonly quantity: number }[];
  readonly paymentMethod: string;
}

/**
 * An order that is not stored yet. Its id is chosen before the transaction, so that after a lost answer to COMMIT the next
 * attempt can tell this order from one that an earlier request placed.
 */
export interface NewOrder {
  readonly orderId: string;
  readonly owner: string;
  readonly requestId: string;
  readonly lines: readonly OrderLine[];
  readonly total: Price;
  readonly paymentMethod: string;
}

const linesMax = 100;
const quantityMax = 1_000;
const paymentMethodPattern = /^pm_[a-z0-9_]{1,60}$/;
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The UUID in lower case. @throws DomainError INVALID_ARGUMENT that names `field`. */
export function parseUuid(field: string, value: string): string {
  const lower = value.toLowerCase();
  if (!uuidPattern.test(lower)) throw invalid(field, `must be a UUID, but is ${quoted(value)}`);
  return lower;
}

/**
 * The order for a request, at the prices of `priceOf`.
 * @throws DomainError INVALID_ARGUMENT that names the first faulty field; what `priceOf` throws.
 */
export function newOrder(
  orderId: string,
  request: PlacementRequest,
  priceOf: (sku: string) => Price | undefined,
): NewOrder {
  const requestId = parseUuid("request_id", request.requestId);
  if (request.lines.length === 0) throw invalid("lines", `must not be empty: an order has 1 to ${linesMax} lines`);
  if (request.lines.length > linesMax) {
    throw invalid("lines", `must have at most ${linesMax} entries, but has ${request.lines.length}`);
  }
  const seen = new Set<string>();
  const lines = request.lines.map(({ sku, quantity }, index): OrderLine => {
    if (!Number.isInteger(quantity) || quantity < 1 || quantity > quantityMax) {
      throw invalid(`lines[${index}].quantity`, `must be 1 to ${quantityMax}, but is ${quantity}`);
    }
    const unitPrice = priceOf(sku);
    if (unitPrice === undefined) throw invalid(`lines[${index}].sku`, `is not for sale: ${quoted(sku)}`);
    if (seen.has(sku)) throw invalid(`lines[${index}].sku`, `appears twice: ${quoted(sku)}; add up the quantities`);
    seen.add(sku);
    return { sku, quantity, unitPrice };
  });
  if (!paymentMethodPattern.test(request.paymentMethod)) {
    throw invalid("payment_method", "must be a token like pm_ok: pm_ followed by 1 to 60 characters of a-z, 0-9 and _");
  }
  const currencyCode = lines[0]?.unitPrice.currencyCode ?? "";
  if (lines.some((line) => line.unitPrice.currencyCode !== currencyCode)) {
    throw invalid("lines", "must all be priced in one currency");
  }
  const minorUnits = lines.reduce((sum, line) => sum + line.unitPrice.minorUnits * BigInt(line.quantity), 0n);
  return {
    orderId,
    owner: request.owner,
    requestId,
    lines,
    total: { currencyCode, minorUnits },
    paymentMethod: request.paymentMethod,
  };
}

/** The event that publishes a new order. */
export function orderPlaced(order: NewOrder): OrderPlaced {
  return create(OrderPlacedSchema, {
    orderId: order.orderId,
    lines: order.lines.map(({ sku, quantity }) => ({ sku, quantity })),
    total: order.total,
    paymentMethod: order.paymentMethod,
  });
}

/** True if two requests ask for the same order. Ignores prices, because they are Order's and may have changed in between. */
export function sameRequest(a: Pick<NewOrder, "lines" | "paymentMethod">, b: typeof a): boolean {
  return (
    a.paymentMethod === b.paymentMethod &&
    a.lines.length === b.lines.length &&
    a.lines.every((line, index) => line.sku === b.lines[index]?.sku && line.quantity === b.lines[index]?.quantity)
  );
}

function invalid(field: string, problem: string): DomainError {
  return new DomainError("INVALID_ARGUMENT", `${field} ${problem}.`);
}

/** A caller's text for an error message, shortened: a request may hold 64 KiB of it. */
function quoted(value: string): string {
  return JSON.stringify(value.length > 64 ? `${value.slice(0, 64)}…` : value);
}
