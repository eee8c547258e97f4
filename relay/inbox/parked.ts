/**
 * The parked keys of one service as an operator sees them, and the request to redeliver them. ../operations/parked.ts wraps
 * this for commands: it allows for services without an inbox, and records requests in the audit log.
 */
import type { Queryable } from "../../services/kit/database.ts";
import { parkedEventTableName, parkedKeyTableName } from "../tables.ts";
import type { Fault } from "./faults.ts";
import { type ParkedEventRow, type ParkedRecord, recordOf } from "./parking.ts";

export interface ParkedKey {
  readonly key: string;
  /** The event that failed last. */
  readonly eventId: string;
  /** Its type. Empty if a redelivery under way has handled this event. */
  readonly eventType: string;
  readonly reason: Fault;
  readonly error: string;
  readonly attempts: number;
  /** Parked events of the key, including the failed one. */
  readonly events: number;
  readonly parkedAt: Date;
  readonly failedAt: Date;
  /** Undefined if no redelivery is requested. */
  readonly redeliveryRequestedAt: Date | undefined;
}

/** An event of a parked key, with the record as it was received. */
export interface ParkedEvent extends ParkedRecord {
  readonly type: string;
  readonly source: string;
  readonly occurredAt: Date | undefined;
  /** What is wrong with it; undefined if it only waits behind another. */
  readonly error: string | undefined;
}

/** The parked keys of a service, oldest first, at most `limit` (default 1,000). */
export async function listParked(
  database: Queryable,
  service: string,
  options: { readonly limit?: number } = {},
): Promise<readonly ParkedKey[]> {
  return await readKeys(database, service, "TRUE", [], options.limit ?? 1_000);
}

async function readKeys(
  database: Queryable,
  service: string,
  where: string,
  values: readonly unknown[],
  limit: number,
): Promise<readonly ParkedKey[]> {
  const events = parkedEventTableName(service);
  const rows = await database.query<{
    aggregate_id: string;
    event_id: string;
    event_type: string | null;
    reason: Fault;
    error: string;
    attempts: number;
    events: number;
    parked_at: Date;
    failed_at: Date;
    replay_requested_at: Date | null;
  }>(
    `SELECT parked.*,
       (SELECT type FROM ${events} AS failed WHERE failed.event_id = parked.event_id) AS event_type,
       (SELECT COUNT(*) FROM ${events} AS waiting WHERE waiting.aggregate_id = parked.aggregate_id) AS events
     FROM ${parkedKeyTableName(service)} AS parked WHERE ${where} ORDER BY parked_at, aggregate_id LIMIT ?`,
    [...values, limit],
  );
  return rows.map((row) => ({
    key: row.aggregate_id,
    eventId: row.event_id,
    eventType: row.event_type ?? "",
    reason: row.reason,
    error: row.error,
    attempts: row.attempts,
    events: Number(row.events),
    parkedAt: row.parked_at,
    failedAt: row.failed_at,
    redeliveryRequestedAt: row.replay_requested_at ?? undefined,
  }));
}

/** A parked key with its events in order, at most `limit` (default 1,000); undefined if the key is not parked. */
export async function showParked(
  database: Queryable,
  service: string,
  key: string,
  options: { readonly limit?: number } = {},
): Promise<{ readonly key: ParkedKey; readonly events: readonly ParkedEvent[] } | undefined> {
  const [found] = await readKeys(database, service, "aggregate_id = ?", [key], 1);
  if (found === undefined) return undefined;
  const rows = await database.query<
    ParkedEventRow & { type: string; source: string; occurred_at: Date | null; error: string | null }
  >(`SELECT * FROM ${parkedEventTableName(service)} WHERE aggregate_id = ? ORDER BY position LIMIT ?`, [
    key,
    options.limit ?? 1_000,
  ]);
  return {
    key: found,
    events: rows.map((row) => ({
      eventId: row.event_id,
      type: row.type,
      source: row.source,
      occurredAt: row.occurred_at ?? undefined,
      error: row.error ?? undefined,
      record: recordOf(row),
    })),
  };
}

/**
 * Requests the redelivery of one parked key, or of all. The service carries it out within seconds, if it is running.
 * @returns the number of new requests: 0 if the key is not parked, or its redelivery is requested already.
 */
export async function requestRedelivery(
  database: Queryable,
  service: string,
  keys: { readonly key: string } | "all",
): Promise<number> {
  return await database.execute(
    `UPDATE ${parkedKeyTableName(service)} SET replay_requested_at = CURRENT_TIMESTAMP(3)
      WHERE replay_requested_at IS NULL ${keys === "all" ? "" : "AND aggregate_id = ?"}`,
    keys === "all" ? [] : [keys.key],
  );
}
