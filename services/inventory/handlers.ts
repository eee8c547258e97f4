import type { NewEvent } from "../../proto/envelope.ts";
import { eventTypesHandledBy } from "../../proto/event-table.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { causeOf, eventCausedBy } from "../../relay/outbox/append.ts";
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

/** The most SKUs that a batch of several events may change: with more, the transaction would keep its locks for too long. */
const skusMax = 5_000;

/** A batch would change more SKUs than one transaction should. The inbox halves it. */
class BatchTooLargeError extends Error {
  override readonly name = "BatchTooLargeError";
}

/**
 * Handles a batch of events: locks the reservations concerned, then their SKUs, decides event by event in memory, and
 * writes each changed row once. Each event sees what the events before it left, so that two orders of one batch never
 * both get the last piece.
 */
export function inventoryHandler(deps: { readonly newId: () => string }): BatchHandler<InventoryMessage> {
  return async (transaction, events) => {
    const before = await lockReservations(transaction, [...new Set(events.map(({ message }) => message.orderId))]);
    const find = (reservations: ReadonlyMap<string, Reservation>, orderId: string) =>
      reservations.get(orderId) ?? noReservation(orderId);
    // The SKUs can be listed before the first decision: if one event of the batch makes a reservation, it has that event's
    // lines, so the order's later events touch no further SKUs.
    const skus = new Set(events.flatMap(({ message }) => skusTouchedBy(find(before, message.orderId), message)));
    if (skus.size > skusMax && events.length > 1) {
      throw new BatchTooLargeError(`${events.length} events change ${skus.size} SKUs; at most ${skusMax}.`);
    }
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
        if (answer !== undefined) publish.push(eventCausedBy(causeOf(envelope), orderId, answer, deps.newId));
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

/** Only the SKUs of one order: `evolve` copies the map, and copying a whole batch's SKUs for each event would be slow. */
function only(stock: ReadonlyMap<string, StockLevel>, skus: readonly string[]): ReadonlyMap<string, StockLevel> {
  return new Map(
    skus.flatMap((sku) => {
      const level = stock.get(sku);
      return level === undefined ? [] : [[sku, level] as const];
    }),
  );
}
