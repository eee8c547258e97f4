/** Inventory in the model: what it may refuse, and what must agree with a reservation. */

import type { InventoryMessage, Reservation } from "../../../services/inventory/domain.ts";
import * as domain from "../../../services/inventory/domain.ts";
import { unreachable } from "../../../services/kit/errors.ts";
import { sameLines } from "./event-summary.ts";
import type { OrderSnapshot } from "./promises.ts";
import { eventsFor, type ServiceModel } from "./service-model.ts";
import { demand } from "./violation.ts";

export const inventory: ServiceModel<typeof domain, Reservation, InventoryMessage> = {
  domain,
  initialRow: ({ noReservation }, orderId) => noReservation(orderId),
  /** Like the real handler, it loads only the stock levels that the domain names for this message. */
  commit({ skusTouchedBy, decide, evolve, toEvent }, before, message, stock) {
    const skus = skusTouchedBy(before, message);
    const loaded = new Map([...stock].filter(([sku]) => skus.includes(sku)));
    const facts = decide({ reservation: before, stock: loaded }, message);
    if (facts.length === 0) return { after: before, published: [], stock };
    const { reservation: after, stock: changed } = facts.reduce(evolve, { reservation: before, stock: loaded });
    if (after.status === "REFUSED" && message.$typeName === "shop.order.v1.OrderPlaced") {
      const fits = message.lines.every(({ sku, quantity }) => quantity <= (stock.get(sku)?.available ?? 0));
      demand(!fits, "an order was refused although all its lines are in stock");
    }
    return {
      after,
      published: eventsFor(before.orderId, facts, toEvent),
      stock: changed.size === 0 ? stock : new Map([...stock, ...changed]),
    };
  },
  check,
};

function check({ placed, rows, events }: OrderSnapshot): void {
  const reservation = rows.inventory;
  const { status } = reservation;
  const disagrees = `I9: the stock is ${status}, but the published events say otherwise`;
  switch (status) {
    case "HELD":
    case "SOLD":
      demand(sameLines(reservation.lines, placed.lines), `I2: the ${status} lines are not the ordered lines`);
      demand(sameLines(events.reserved, placed.lines) && events.released.length === 0, disagrees);
      return;
    case "NONE":
    case "REFUSED":
      demand(events.reserved.length === 0 && events.released.length === 0, disagrees);
      return;
    case "RELEASED":
    case "CANCELLED":
      demand(
        sameLines(events.reserved, events.released),
        "I9: the lines in StockReleased are not the lines in StockReserved",
      );
      demand(sameLines(reservation.lines, events.released), disagrees);
      return;
    default:
      unreachable(status);
  }
}
