/** Inventory's rows, for a whole batch at once: one statement each, however many orders and SKUs. */
import type { Transaction } from "../kit/database.ts";
import { unreachable } from "../kit/errors.ts";
import { insertStatements, type Statement, updateStatements } from "../kit/statements.ts";
import type { Line, Reservation, ReservationStatus, StockLevel, StockLevels } from "./domain.ts";

interface ReservationRow extends Record<string, unknown> {
  order_id: string;
  status: Exclude<ReservationStatus, "NONE">;
  held_lines: string;
}

/** Locks the orders' reservations, in the order of their ids. Orders that have none are left out. */
export async function lockReservations(
  transaction: Transaction,
  orderIds: readonly string[],
): Promise<ReadonlyMap<string, Reservation>> {
  // By force: a scan of a small table would wait for rows that are none of ours, in no fixed order.
  const rows = await transaction.query<ReservationRow>(
    `SELECT order_id, status, held_lines FROM reservation FORCE INDEX (PRIMARY)
      WHERE order_id IN (?) ORDER BY order_id FOR UPDATE`,
    [orderIds],
  );
  return new Map(rows.map((row) => [row.order_id, reservationOf(row)]));
}

/**
 * Locks the SKUs, in their order, and reads their levels. Unknown SKUs are left out. It has to be the last read of a
 * batch: everybody wants these rows, so they are held as shortly as can be, and nobody who holds them waits for more.
 */
export async function lockStock(transaction: Transaction, skus: readonly string[]): Promise<StockLevels> {
  if (skus.length === 0) return new Map();
  const rows = await transaction.query<{ sku: string; available: number; held: number; sold: number }>(
    `SELECT sku, available, held, sold FROM stock FORCE INDEX (PRIMARY)
      WHERE sku IN (?) ORDER BY sku FOR UPDATE`,
    [skus],
  );
  return new Map(rows.map(({ sku, ...level }) => [sku, level]));
}

/** Inserts reservations that were not there. A duplicate key is thrown: another instance was first. */
export function insertReservations(reservations: readonly Reservation[]): readonly Statement[] {
  return insertStatements("reservation", ["order_id", "status", "held_lines"], reservations.map(toRow));
}

/** Writes reservations that were there. Their rows are locked. */
export function updateReservations(reservations: readonly Reservation[]): readonly Statement[] {
  return updateStatements({
    table: "reservation",
    columns: ["order_id", "status", "held_lines"],
    rows: reservations.map(toRow),
    also: "target.updated_at = CURRENT_TIMESTAMP(3)",
  });
}

/** Writes stock levels. Their rows are locked; the table's CHECKs have the last word. */
export function updateStock(levels: readonly (readonly [sku: string, level: StockLevel])[]): readonly Statement[] {
  return updateStatements({
    table: "stock",
    columns: ["sku", "available", "held", "sold"],
    rows: levels.map(([sku, { available, held, sold }]) => [sku, available, held, sold]),
  });
}

function toRow(reservation: Reservation): readonly string[] {
  const lines = "lines" in reservation ? reservation.lines : [];
  return [reservation.orderId, reservation.status, JSON.stringify(lines)];
}

function reservationOf(row: ReservationRow): Reservation {
  const { order_id: orderId, status } = row;
  switch (status) {
    case "REFUSED":
      return { orderId, status };
    case "HELD":
    case "RELEASED":
    case "SOLD":
    case "CANCELLED":
      return { orderId, status, lines: JSON.parse(row.held_lines) as readonly Line[] };
    default:
      return unreachable(status);
  }
}
