/** Reads and writes Inventory's rows: one statement per table for any number of orders and SKUs. */
import type { Transaction } from "../kit/database.ts";
import type { DriverRow } from "../kit/driver-row.ts";
import { UnreadableRowError } from "../kit/errors.ts";
import { insertStatements, type Statement, updateStatements } from "../kit/statements.ts";
import type { Line, Reservation, StockLevel, StockLevels } from "./domain.ts";
import type { reservation, stock } from "./schema.ts";

type ReservationRow = Pick<DriverRow<typeof reservation>, "order_id" | "status" | "held_lines">;
type StockRow = Pick<DriverRow<typeof stock>, "sku" | "available" | "held" | "sold">;

/** Locks the orders' reservations, in the order of their ids. Leaves out orders without one. */
export async function lockReservations(
  transaction: Transaction,
  orderIds: readonly string[],
): Promise<ReadonlyMap<string, Reservation>> {
  // FORCE INDEX: on a small table the optimizer may scan, and a scan would block on other orders' locks, in any order.
  const rows = await transaction.query<ReservationRow>(
    `SELECT order_id, status, held_lines FROM reservation FORCE INDEX (PRIMARY)
      WHERE order_id IN (?) ORDER BY order_id FOR UPDATE`,
    [orderIds],
  );
  return new Map(rows.map((row) => [row.order_id, reservationOf(row)]));
}

/**
 * Locks the SKUs, in their order, and reads their levels. Leaves out unknown SKUs. Must be a batch's last read: all orders
 * compete for these rows, so they should be locked only briefly, and while a transaction holds them it must not wait for
 * other locks.
 */
export async function lockStock(transaction: Transaction, skus: readonly string[]): Promise<StockLevels> {
  if (skus.length === 0) return new Map();
  const rows = await transaction.query<StockRow>(
    `SELECT sku, available, held, sold FROM stock FORCE INDEX (PRIMARY)
      WHERE sku IN (?) ORDER BY sku FOR UPDATE`,
    [skus],
  );
  return new Map(rows.map(({ sku, ...level }) => [sku, level]));
}

/** Inserts new reservations. Fails with a duplicate key if another instance inserted one first. */
export function insertReservations(reservations: readonly Reservation[]): readonly Statement[] {
  return insertStatements("reservation", ["order_id", "status", "held_lines"], reservations.map(toRow));
}

/** Updates existing reservations. Their rows must be locked. */
export function updateReservations(reservations: readonly Reservation[]): readonly Statement[] {
  return updateStatements({
    table: "reservation",
    columns: ["order_id", "status", "held_lines"],
    rows: reservations.map(toRow),
    also: "target.updated_at = CURRENT_TIMESTAMP(3)",
  });
}

/** Updates stock levels. Their rows must be locked. The table's CHECKs refuse levels that are negative or do not add up. */
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
      return unknownStatus(orderId, status);
  }
}

function unknownStatus(orderId: string, status: never): never {
  throw new UnreadableRowError(
    `The reservation of order ${orderId} is ${status}, a status that this version does not know.`,
  );
}
