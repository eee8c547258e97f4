/** Orders and stock to start from. */
import { create } from "@bufbuild/protobuf";
import { type OrderPlaced, OrderPlacedSchema } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import type { Line, StockLevels } from "../../../services/inventory/domain.ts";

/** An order that was just placed, at 10.01 for each piece: if half of an odd total gets lost, the checks notice. */
export function placedOrder(number: number, lines: readonly Line[]): OrderPlaced {
  const pieces = lines.reduce((sum, { quantity }) => sum + quantity, 0);
  return create(OrderPlacedSchema, {
    orderId: `order-${number}`,
    lines: [...lines],
    total: { currencyCode: "EUR", minorUnits: BigInt(pieces) * 1_001n },
    paymentMethod: "pm_ok",
  });
}

/** Stock that is all available. */
export function stockOf(available: Readonly<Record<string, number>>): StockLevels {
  return new Map(Object.entries(available).map(([sku, pieces]) => [sku, { available: pieces, held: 0, sold: 0 }]));
}
