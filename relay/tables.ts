/**
 * The tables of outbox and inbox. Every service has its own in its database, named after it, and lists them in its
 * schema.ts, from which migrations are generated.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  char,
  customType,
  index,
  int,
  mediumtext,
  mysqlTable,
  smallint,
  text,
  timestamp,
  unique,
  varchar,
} from "drizzle-orm/mysql-core";

/** README.md shows how it changes. In the archive it is PUBLISHED or DISCARDED. */
export type OutboxStatus = "PENDING" | "FAILED" | "PUBLISHED" | "DEAD" | "DISCARDED";
/** The result of a record: handled, ignored (it does not concern this service, or nothing was left to do), or parked. */
export type InboxOutcome = "HANDLED" | "IGNORED" | "PARKED";

// Table names, derived from the service's name.
export const outboxTableName = (service: string) => `${service}_outbox_event`;
export const outboxArchiveTableName = (service: string) => `${service}_outbox_event_archive`;
export const inboxTableName = (service: string) => `${service}_inbox_event`;
export const parkedKeyTableName = (service: string) => `${service}_parked_key`;
export const parkedEventTableName = (service: string) => `${service}_parked_event`;

const eventColumns = () => ({
  id: char("id", { length: 36 }).primaryKey(),
  aggregateId: varchar("aggregate_id", { length: 128 }).notNull(),
  type: varchar("type", { length: 128 }).notNull(),
  payload: mediumtext("payload").notNull(),
  headers: text("headers"),
  occurredAt: timestamp("occurred_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
  status: varchar("status", { length: 20 }).notNull().default("PENDING"),
  retryCount: smallint("retry_count", { unsigned: true }).notNull().default(0),
  lastError: text("last_error"),
  publishedAt: timestamp("published_at", { fsp: 3 }),
});

/**
 * Events, each committed with the business change that it reports. The service inserts a row; afterwards only the relay
 * and operators' commands change it.
 */
export function outboxTable(service: string) {
  const name = outboxTableName(service);
  return mysqlTable(
    name,
    {
      ...eventColumns(),
      seq: bigint("seq", { mode: "bigint", unsigned: true }).autoincrement().notNull(),
      /** Set while FAILED. */
      nextAttemptAt: timestamp("next_attempt_at", { fsp: 3 }),
    },
    (table) => [
      unique(`${name}_seq`).on(table.seq),
      // By this index the relay reads pending rows in order, however many published rows there are. It contains the key,
      // so that rows of held keys are skipped without being read.
      index(`${name}_pending`).on(table.status, table.seq, table.aggregateId),
      index(`${name}_aggregate_id`).on(table.aggregateId, table.seq),
    ],
  );
}

/** Published rows that were moved out of the outbox, and discarded rows. */
export function outboxArchiveTable(service: string) {
  const name = outboxArchiveTableName(service);
  return mysqlTable(
    name,
    {
      ...eventColumns(),
      seq: bigint("seq", { mode: "bigint", unsigned: true }).notNull(),
      archivedAt: timestamp("archived_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
      discardedBy: varchar("discarded_by", { length: 128 }),
      discardReason: varchar("discard_reason", { length: 500 }),
    },
    (table) => [
      unique(`${name}_seq`).on(table.seq),
      index(`${name}_aggregate_id`).on(table.aggregateId, table.seq),
      index(`${name}_archived_at`).on(table.archivedAt),
    ],
  );
}

/** Received events. Each row is inserted in the transaction of its event's effect, so the effect happens only once. */
export function inboxTable(service: string) {
  const name = inboxTableName(service);
  return mysqlTable(
    name,
    {
      eventId: char("event_id", { length: 36 }).primaryKey(),
      aggregateId: varchar("aggregate_id", { length: 128 }).notNull(),
      type: varchar("type", { length: 128 }).notNull(),
      ceSource: varchar("source", { length: 128 }).notNull(),
      occurredAt: timestamp("occurred_at", { fsp: 3 }).notNull(),
      /** The record's timestamp on the topic. */
      publishedAt: timestamp("published_at", { fsp: 3 }).notNull(),
      topicPartition: int("topic_partition", { unsigned: true }).notNull(),
      topicOffset: bigint("topic_offset", { mode: "bigint", unsigned: true }).notNull(),
      /** When the row was inserted, or its parked event redelivered. Rows are pruned by it. */
      handledAt: timestamp("handled_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
      /** The attempt that inserted the row. By it, an attempt tells its own rows from those of earlier ones (inbox/rows.ts). */
      batchId: char("batch_id", { length: 36 }).notNull(),
      outcome: varchar("outcome", { length: 20 }).notNull(),
    },
    (table) => [index(`${name}_aggregate_id`).on(table.aggregateId), index(`${name}_handled_at`).on(table.handledAt)],
  );
}

/**
 * Keys with an event that could not be handled. Each key has one row, which is locked while the key is handled. As long as
 * the row exists, all events of the key wait in the table of parked events.
 */
export function parkedKeyTable(service: string) {
  const name = parkedKeyTableName(service);
  return mysqlTable(
    name,
    {
      aggregateId: varchar("aggregate_id", { length: 128 }).primaryKey(),
      /** The event that failed last. */
      eventId: char("event_id", { length: 36 }).notNull(),
      /** What is wrong with it: a Fault of inbox/faults.ts. */
      fault: varchar("reason", { length: 20 }).notNull(),
      error: text("error").notNull(),
      /** Attempts so far: those before it was parked, and one for each redelivery that failed. */
      attempts: int("attempts", { unsigned: true }).notNull(),
      parkedAt: timestamp("parked_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
      failedAt: timestamp("failed_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
      /** Set by an operator: the service redelivers the key. Cleared if the redelivery fails. */
      redeliveryRequestedAt: timestamp("replay_requested_at", { fsp: 3 }),
    },
    (table) => [index(`${name}_replay_requested_at`).on(table.redeliveryRequestedAt)],
  );
}

const longblob = customType<{ data: Buffer }>({ dataType: () => "longblob" });

/** The records of a service's parked keys, byte for byte, in the order of the topic. */
export function parkedEventTable(service: string) {
  const name = parkedEventTableName(service);
  return mysqlTable(
    name,
    {
      eventId: char("event_id", { length: 36 }).primaryKey(),
      position: bigint("position", { mode: "bigint", unsigned: true }).autoincrement().notNull(),
      aggregateId: varchar("aggregate_id", { length: 128 }).notNull(),
      type: varchar("type", { length: 128 }).notNull(),
      ceSource: varchar("source", { length: 128 }).notNull(),
      /** NULL for a record that does not decode. */
      occurredAt: timestamp("occurred_at", { fsp: 3 }),
      publishedAt: timestamp("published_at", { fsp: 3 }).notNull(),
      topicPartition: int("topic_partition", { unsigned: true }).notNull(),
      topicOffset: bigint("topic_offset", { mode: "bigint", unsigned: true }).notNull(),
      recordKey: longblob("record_key"),
      /** JSON: [[name, value], …]; a value that is not UTF-8 is {"base64": …}. */
      headers: mediumtext("headers").notNull(),
      /** The record's value. */
      payload: longblob("payload"),
      /** Why this event could not be handled; NULL if it only waits behind another event of its key. */
      error: text("error"),
      parkedAt: timestamp("parked_at", { fsp: 3 }).notNull().default(sql`CURRENT_TIMESTAMP(3)`),
    },
    (table) => [
      unique(`${name}_position`).on(table.position),
      index(`${name}_aggregate_id`).on(table.aggregateId, table.position),
    ],
  );
}
