/** The tables of `shop_inventory`. `npm run generate` makes the migrations from this file. */
import { sql } from "drizzle-orm";
import { check, int, mysqlTable, text, timestamp, varchar } from "drizzle-orm/mysql-core";
import { inboxTable, outboxArchiveTable, outboxTable, parkedEventTable, parkedKeyTable } from "../../relay/tables.ts";
import type { ReservationStatus } from "./domain.ts";

const now = sql`CURRENT_TIMESTAMP(3)`;

/** Pieces by SKU. Signed, so that a CHECK refuses to oversell; unsigned columns would fail with an overflow instead. */
export const stock = mysqlTable(
  "stock",
  {
    sku: varchar("sku", { length: 64 }).primaryKey(),
    initial: int("initial").notNull(),
    available: int("available").notNull(),
    held: int("held").notNull().default(0),
    sold: int("sold").notNull().default(0),
  },
  () => [
    // Unqualified names: MySQL and MariaDB quote and qualify the columns of a CHECK differently.
    check("stock_not_negative", sql.raw("available >= 0 AND held >= 0 AND sold >= 0")),
    check("stock_adds_up", sql.raw("initial = available + held + sold")),
  ],
);

/** An order's reservation: one row per order, from the first event about it. */
export const reservation = mysqlTable("reservation", {
  orderId: varchar("order_id", { length: 128 }).primaryKey(),
  status: varchar("status", { length: 20 }).$type<Exclude<ReservationStatus, "NONE">>().notNull(),
  /** JSON `[{"sku":…,"quantity":…}]`: the pieces that are or were held. Kept when they are released or sold. */
  heldLines: text("held_lines").notNull(),
  createdAt: timestamp("created_at", { fsp: 3 }).notNull().default(now),
  updatedAt: timestamp("updated_at", { fsp: 3 }).notNull().default(now),
});

export const outbox = outboxTable("inventory");
export const outboxArchive = outboxArchiveTable("inventory");
export const inbox = inboxTable("inventory");
export const parkedKeys = parkedKeyTable("inventory");
export const parkedEvents = parkedEventTable("inventory");
