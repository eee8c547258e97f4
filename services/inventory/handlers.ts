import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { answerTo, causeOf } from "../../relay/outbox/append.ts";
import {
  decide,
  evolve,
  type InventoryMessage,
  noReservation,
  type Reservation,
  type StockLevel,
  skusTouchedBy,
  toEvent,
} from "./domain.ts";
import { insertReservations, lockReservations, lockStock, updateReservations, updateStock } from "./repository.ts";

/** The event types that inventory reacts to. */
export const handledTypes = eventTypesHandledBy("inventory");

/**
 * Handles a batch of events: every reservation concerned is locked once, then every SKU; each event is decided on what
 * the events before it left, so that two orders of one batch never both get the last piece; each row is written once.
 */
export function inventoryHandler(deps: { readonly newId: () => string }): BatchHandler<InventoryMessage> {
  return async (transaction, events) => {
    const before = await lockReservations(transaction, [...new Set(events.map(({ message }) => message.orderId))]);
    const find = (reservations: ReadonlyMap<string, Reservation>, orderId: string) =>
      reservations.get(orderId) ?? noReservation(orderId);
    // Within a batch an order's events touch the SKUs that they would touch alone: a reservation that one event makes
    // has the lines of that event.
    const skus = new Set(events.flatMap(({ message }) => skusTouchedBy(find(before, message.orderId), message)));
    const stockBefore = await lockStock(transaction, [...skus]);

    const after = new Map(before);
    const stock = new Map(stockBefore);
    const publish: NewEvent[] = [];
    const ignored: string[] = [];
    for (const { envelope, message } of events) {
      const { orderId } = message;
      const reservation = find(after, orderId);
      const state = { reservation, stock: only(stock, skusTouchedBy(reservation, message)) };
      const facts = decide(state, message);
      if (facts.length === 0) {
        ignored.push(envelope.id);
        continue;
      }
      const changed = facts.reduce(evolve, state);
      after.set(orderId, changed.reservation);
      for (const [sku, level] of changed.stock) stock.set(sku, level);
      for (const fact of facts) {
        const answer = toEvent(orderId, fact);
        if (answer !== undefined) publish.push(answerTo(causeOf(envelope), orderId, answer, deps.newId));
      }
    }

    const changed = [...after.values()].filter((reservation) => before.get(reservation.orderId) !== reservation);
    const isNew = ({ orderId }: Reservation) => !before.has(orderId);
    const writes = [
      ...insertReservations(changed.filter(isNew)),
      ...updateReservations(changed.filter((reservation) => !isNew(reservation))),
      ...updateStock([...stock].filter(([sku, level]) => stockBefore.get(sku) !== level)),
    ];
    return { writes, publish, ignored };
  };
}

/** Copying an order's own SKUs is cheap; copying a batch's for each of its events is not. */
function only(stock: ReadonlyMap<string, StockLevel>, skus: readonly string[]): ReadonlyMap<string, StockLevel> {
  return new Map(
    skus.flatMap((sku) => {
      const level = stock.get(sku);
      return level === undefined ? [] : [[sku, level] as const];
    }),
  );
}
