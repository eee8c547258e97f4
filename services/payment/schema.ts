/** The tables of `shop_payment`. `npm run generate` makes the migrations from this file. */
import { sql } from "drizzle-orm";
import { bigint, index, int, mysqlTable, text, timestamp, varchar } from "drizzle-orm/mysql-core";
import { inboxTable, outboxArchiveTable, outboxTable, parkedEventTable, parkedKeyTable } from "../../relay/tables.ts";
import type { PaymentStatus } from "./domain.ts";

const now = sql`CURRENT_TIMESTAMP(3)`;

/** The payment of an order: one row per order, from the first event about it. */
export const payment = mysqlTable(
  "payment",
  {
    orderId: varchar("order_id", { length: 128 }).primaryKey(),
    status: varchar("status", { length: 20 }).$type<Exclude<PaymentStatus, "NONE">>().notNull(),
    /** What the order costs. NULL if the cancel arrived before OrderPlaced. */
    currencyCode: varchar("currency_code", { length: 3 }),
    amountMinor: bigint("amount_minor", { mode: "bigint" }),
    paymentMethod: varchar("payment_method", { length: 64 }),
    /** The gateway's id. Kept when voided: if it is set, PaymentAuthorized was published. */
    authorizationId: varchar("authorization_id", { length: 128 }),
    /** The amount that the confirmed void gave back; 0 if there was nothing to void. */
    voidedMinor: bigint("voided_minor", { mode: "bigint" }),
    /** The gateway's answer when it refused the void. */
    refusal: varchar("refusal", { length: 255 }),
    /** JSON of the event that the pending gateway call answers (`Cause` in relay/outbox/append.ts). */
    cause: text("cause"),
    /** Attempts at the pending gateway call. */
    attempts: int("attempts", { unsigned: true }).notNull().default(0),
    /** When the pending gateway call is due; NULL if none is pending. */
    nextAttemptAt: timestamp("next_attempt_at", { fsp: 3 }),
    createdAt: timestamp("created_at", { fsp: 3 }).notNull().default(now),
    updatedAt: timestamp("updated_at", { fsp: 3 }).notNull().default(now),
  },
  (table) => [index("payment_next_attempt_at").on(table.nextAttemptAt)],
);

export const outbox = outboxTable("payment");
export const outboxArchive = outboxArchiveTable("payment");
export const inbox = inboxTable("payment");
export const parkedKeys = parkedKeyTable("payment");
export const parkedEvents = parkedEventTable("payment");
