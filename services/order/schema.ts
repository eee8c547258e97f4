/** The tables of `shop_order`. `npm run generate` makes the migrations from this file. */
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
import type { FailureReason, OrderStatus } from "./domain.ts";

/** One row per order: written, locked and read as a whole. */
export const orders = mysqlTable(
  "orders",
  {
    orderId: char("order_id", { length: 36 }).primaryKey(),
    /** Empty until there is authentication. */
    owner: varchar("owner", { length: 128 }).notNull(),
    requestId: char("request_id", { length: 36 }).notNull(),
    status: varchar("status", { length: 20 }).$type<OrderStatus>().notNull(),
    failureReason: varchar("failure_reason", { length: 20 }).$type<FailureReason>(),
    /** While COMPENSATING: the answers that have not arrived yet. */
    awaitsStock: boolean("awaits_stock").notNull().default(false),
    awaitsPayment: boolean("awaits_payment").notNull().default(false),
    version: int("version", { unsigned: true }).notNull(),
    /** JSON: [{ sku, quantity, unitPriceMinor }]. TEXT, because MySQL and MariaDB return a JSON column differently. */
    lines: text("lines_json").notNull(),
    currencyCode: char("currency_code", { length: 3 }).notNull(),
    totalMinor: bigint("total_minor", { mode: "bigint" }).notNull(),
    paymentMethod: varchar("payment_method", { length: 64 }).notNull(),
    /** The reason that the owner gave for a cancel. */
    cancelReason: varchar("cancel_reason", { length: 500 }),
    /** W3C trace context of the request that placed the order. One order is one trace. */
    traceparent: varchar("traceparent", { length: 64 }),
    /** When an undecided order is timed out. NULL once it is decided, so that the index stays small. */
    deadlineAt: timestamp("deadline_at", { fsp: 3 }),
    /** Set while COMPENSATING. The indexes on this column and on `deadline_at` together find all orders in flight. */
    compensatingSince: timestamp("compensating_since", { fsp: 3 }),
    createdAt: timestamp("created_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
    updatedAt: timestamp("updated_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
  },
  (table) => [
    // One request makes one order.
    unique("orders_owner_request_id").on(table.owner, table.requestId),
    index("orders_deadline_at").on(table.deadlineAt),
    index("orders_compensating_since").on(table.compensatingSince),
  ],
);

/** What Order sells, and at which price. */
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
