/** The tables of `shop_order`. Migrations are generated from here: `npm run generate`. */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  char,
  index,
  int,
  mysqlTable,
  text,
  timestamp,
  unique,
  varchar,
} from "drizzle-orm/mysql-core";
import { inboxTable, outboxArchiveTable, outboxTable, parkedEventTable, parkedKeyTable } from "../../relay/tables.ts";

/** An order is one row: written, locked and read whole. */
export const orders = mysqlTable(
  "orders",
  {
    orderId: char("order_id", { length: 36 }).primaryKey(),
    /** Empty until there is authentication. */
    owner: varchar("owner", { length: 128 }).notNull(),
    requestId: char("request_id", { length: 36 }).notNull(),
    status: varchar("status", { length: 20 }).notNull(),
    failureReason: varchar("failure_reason", { length: 20 }),
    /** While COMPENSATING: which answers are still to come. */
    awaitsStock: boolean("awaits_stock").notNull().default(false),
    awaitsPayment: boolean("awaits_payment").notNull().default(false),
    version: int("version", { unsigned: true }).notNull(),
    /** JSON: [{ sku, quantity, unitPriceMinor }]. TEXT, since the drivers of the two dialects read JSON differently. */
    lines: text("lines_json").notNull(),
    currencyCode: char("currency_code", { length: 3 }).notNull(),
    totalMinor: bigint("total_minor", { mode: "bigint" }).notNull(),
    paymentMethod: varchar("payment_method", { length: 64 }).notNull(),
    /** What its owner gave as the reason of a cancel. */
    cancelReason: varchar("cancel_reason", { length: 500 }),
    /** W3C trace context of the request that placed it: one order is one trace. */
    traceparent: varchar("traceparent", { length: 64 }),
    /** When the order is given up; NULL once there is nothing to give up any more, so that the index stays small. */
    deadlineAt: timestamp("deadline_at", { fsp: 3 }),
    /** While COMPENSATING, else NULL: the orders in flight are found by this index and the one before. */
    compensatingSince: timestamp("compensating_since", { fsp: 3 }),
    createdAt: timestamp("created_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
    updatedAt: timestamp("updated_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
  },
  // One request makes one order.
  (table) => [
    unique("orders_owner_request_id").on(table.owner, table.requestId),
    index("orders_deadline_at").on(table.deadlineAt),
    index("orders_compensating_since").on(table.compensatingSince),
  ],
);

/** What Order sells, and for how much. */
export const prices = mysqlTable("price", {
  sku: varchar("sku", { length: 64 }).primaryKey(),
  currencyCode: char("currency_code", { length: 3 }).notNull(),
  minorUnits: bigint("minor_units", { mode: "bigint" }).notNull(),
});

export const outbox = outboxTable("order");
export const outboxArchive = outboxArchiveTable("order");
export const inbox = inboxTable("order");
export const parkedKeys = parkedKeyTable("order");
export const parkedEvents = parkedEventTable("order");
