/**
 * Redelivery of parked keys: when an operator has requested it, the service handles the parked events of the key again, in
 * order. If all succeed, the key is no longer parked. If one fails again, the events before it keep their effect, and the
 * key stays parked with the new error.
 */
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import type { Database, Transaction } from "../../services/kit/database.ts";
import { every, type Schedule } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import { inboxTableName, parkedEventTableName, parkedKeyTableName } from "../tables.ts";
import { describeFailure, errorFields, type Fault, faultOf } from "./faults.ts";
import { type InboxMetrics, parkedKeysCountMax } from "./metrics.ts";
import { type ParkedEventRow, type ParkedRecord, recordOf } from "./parking.ts";
import { inboxRetryPolicy } from "./retry-policy.ts";

const { pollIntervalMs, backoff, outagesMax } = inboxRetryPolicy.redelivery;
/** Events of a key that are handled in one transaction. */
const eventsPerTransaction = 50;

export interface RedeliveryOptions {
  readonly service: string;
  readonly database: Database;
  readonly log: Logger;
  readonly metrics: Pick<InboxMetrics, "parkedKeys" | "redeliveries">;
  /** Handles all of the events in the open transaction. Returns what to call after the commit. */
  readonly handle: (transaction: Transaction, events: readonly ParkedRecord[]) => Promise<() => void>;
  readonly onTransactionRetry: () => void;
}

/**
 * Redelivers every key whose redelivery is requested, in order of the requests. A key's row is deleted in the transaction
 * of its last event. Any instance may run this at any time: it locks the key's row, and skips keys that are locked.
 * @throws the first outage, at the end. The keys that it concerns are unchanged, and their redelivery is still requested.
 */
export async function redeliverRequested(options: RedeliveryOptions, signal?: AbortSignal): Promise<void> {
  if (!(await isAnyRequested(options))) return;
  const outages = new Map<string, unknown>();
  let unfinished: UnfinishedKey | undefined;
  while (!signal?.aborted && outages.size < outagesMax) {
    let key: string | undefined;
    const wanted = {
      unfinished,
      skippedKeys: [...outages.keys()],
      onLocked(locked: string) {
        key = locked;
      },
    };
    try {
      const step = await options.database.transaction((transaction) => redeliverNext(transaction, options, wanted), {
        onRetry: options.onTransactionRetry,
      });
      if (step === undefined && unfinished === undefined) break;
      step?.committed?.();
      unfinished = step?.unfinished;
      if (step?.result !== undefined) report(options, key, step);
    } catch (error) {
      options.metrics.redeliveries.inc({ result: "outage" });
      options.log.error({ key, ...errorFields(error) }, "redelivery postponed by an outage");
      if (key === undefined) throw error;
      outages.set(key, error);
      unfinished = undefined;
    }
  }
  for (const error of outages.values()) throw error;
}

/** Also counts the parked keys, in the same round trip. */
async function isAnyRequested({ database, service, metrics }: RedeliveryOptions): Promise<boolean> {
  const table = parkedKeyTableName(service);
  const [counts] = await database.query<{ parked: number; requested: number }>(
    `SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM ${table} LIMIT ${parkedKeysCountMax}) AS counted) AS parked,
       EXISTS (SELECT 1 FROM ${table} WHERE replay_requested_at IS NOT NULL) AS requested`,
  );
  metrics.parkedKeys.set(Number(counts?.parked ?? 0));
  return Number(counts?.requested ?? 0) > 0;
}

/** A key with some of its events redelivered, and how many of the remaining ones the next transaction takes at most. */
interface UnfinishedKey {
  readonly key: string;
  readonly eventsMax: number;
}

/** The result of one transaction of a redelivery. */
interface RedeliveryStep {
  /** Undefined while the key has more events to redeliver. */
  readonly result?: "handled" | "failed";
  readonly unfinished?: UnfinishedKey;
  readonly error?: string;
  readonly committed?: () => void;
}

function report({ metrics, log }: RedeliveryOptions, key: string | undefined, { result, error }: RedeliveryStep) {
  if (result === undefined) return;
  metrics.redeliveries.inc({ result });
  if (result === "handled") log.info({ key, result, error }, "parked key redelivered");
  else log.error({ key, result, error }, "redelivery failed: the key stays parked");
}

interface LockedKey {
  readonly key: string;
  readonly now: Date;
}

/** One transaction of a redelivery: some events of one key. Undefined if there is no key that it can lock. */
async function redeliverNext(
  transaction: Transaction,
  options: RedeliveryOptions,
  wanted: {
    readonly unfinished: UnfinishedKey | undefined;
    readonly skippedKeys: readonly string[];
    readonly onLocked: (key: string) => void;
  },
): Promise<RedeliveryStep | undefined> {
  const { service } = options;
  const locked = await lockRequestedKey(transaction, service, wanted.unfinished?.key, wanted.skippedKeys);
  if (locked === undefined) return undefined;
  const { key } = locked;
  wanted.onLocked(key);

  const eventsMax = wanted.unfinished?.eventsMax ?? eventsPerTransaction;
  const rows = await transaction.query<ParkedEventRow>(
    `SELECT event_id, published_at, topic_partition, topic_offset, record_key, headers, payload
      FROM ${parkedEventTableName(service)} WHERE aggregate_id = ? ORDER BY position LIMIT ?`,
    [key, eventsMax + 1],
  );
  const events = rows.slice(0, eventsMax).map((row) => ({ eventId: row.event_id, record: recordOf(row) }));
  const outcome: Handled | Failed = events.length === 0 ? {} : await handleOrUndo(transaction, options, locked, events);
  if ("fault" in outcome) {
    // From now on each event has its own transaction, so that those before the faulty one have their effect.
    if (events.length > 1) return { unfinished: { key, eventsMax: 1 } };
    await recordFailure(transaction, service, locked, events[0], outcome);
    return { result: "failed", error: outcome.error };
  }
  if (rows.length > events.length) return { unfinished: { key, eventsMax }, ...outcome };
  await transaction.execute(`DELETE FROM ${parkedKeyTableName(service)} WHERE aggregate_id = ?`, [key]);
  return { result: "handled", ...outcome };
}

/** Locks `key`, or, without one, the first requested key that is neither skipped nor locked by another instance. */
async function lockRequestedKey(
  transaction: Transaction,
  service: string,
  key: string | undefined,
  skippedKeys: readonly string[],
): Promise<LockedKey | undefined> {
  const isSkipping = key === undefined && skippedKeys.length > 0;
  const [locked] = await transaction.query<{ aggregate_id: string; now: Date }>(
    `SELECT aggregate_id, CURRENT_TIMESTAMP(3) AS now FROM ${parkedKeyTableName(service)}
      WHERE replay_requested_at IS NOT NULL
        ${key === undefined ? "" : "AND aggregate_id = ?"} ${isSkipping ? "AND aggregate_id NOT IN (?)" : ""}
      ORDER BY replay_requested_at LIMIT 1 FOR UPDATE SKIP LOCKED`,
    [...(key === undefined ? [] : [key]), ...(isSkipping ? [skippedKeys] : [])],
  );
  return locked === undefined ? undefined : { key: locked.aggregate_id, now: locked.now };
}

interface Handled {
  readonly committed?: () => void;
}

interface Failed {
  readonly fault: Fault;
  readonly error: string;
}

/**
 * Handles the events and deletes them from the parked ones; or, if one has a fault, leaves everything as it was.
 * @throws an outage.
 */
async function handleOrUndo(
  transaction: Transaction,
  { service, handle }: RedeliveryOptions,
  { now }: LockedKey,
  events: readonly ParkedRecord[],
): Promise<Handled | Failed> {
  const ids = events.map(({ eventId }) => eventId);
  let committed: () => void;
  await transaction.execute("SAVEPOINT before_redelivery");
  try {
    await transaction.execute(
      `UPDATE ${inboxTableName(service)} SET outcome = 'HANDLED', handled_at = ? WHERE event_id IN (?)`,
      [now, ids],
    );
    committed = await handle(transaction, events);
  } catch (error) {
    const fault = faultOf(error);
    if (fault === undefined) throw error;
    await transaction.execute("ROLLBACK TO SAVEPOINT before_redelivery");
    return { fault, error: describeFailure(error) };
  }
  await transaction.execute(`DELETE FROM ${parkedEventTableName(service)} WHERE event_id IN (?)`, [ids]);
  return { committed };
}

async function recordFailure(
  transaction: Transaction,
  service: string,
  { key, now }: LockedKey,
  event: ParkedRecord | undefined,
  { fault, error }: Failed,
): Promise<void> {
  await transaction.execute(
    `UPDATE ${parkedKeyTableName(service)} SET event_id = ?, reason = ?, error = ?, attempts = attempts + 1,
       failed_at = ?, replay_requested_at = NULL WHERE aggregate_id = ?`,
    [event?.eventId, fault, error, now, key],
  );
  await transaction.execute(`UPDATE ${parkedEventTableName(service)} SET error = ? WHERE event_id = ?`, [
    error,
    event?.eventId,
  ]);
}

/** Calls `redeliver` now and every second until closed. After an outage it waits longer. */
export function startRedelivery(redeliver: (signal: AbortSignal) => Promise<void>, log: Logger): Schedule {
  let outagesInRow = 0;
  return every(
    pollIntervalMs,
    async (signal) => {
      try {
        await redeliver(signal);
        outagesInRow = 0;
      } catch (error) {
        log.warn(errorFields(error), "redelivery failed; will be retried");
        await sleep(fullJitterMs(outagesInRow++, backoff), signal);
      }
    },
    () => undefined,
    { startNow: true },
  );
}
