/**
 * Redelivery of parked keys: when an operator has requested it, the service handles the parked events of the key again, in
 * order. If all succeed, the key is no longer parked. If one fails again, the events before it keep their effect, and the
 * key stays parked with the new error.
 */
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import type { Database, Transaction } from "../../services/kit/database.ts";
import { unreachable } from "../../services/kit/errors.ts";
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
    const step = await redeliverStep(options, unfinished, [...outages.keys()]);
    report(options, step);
    // Without an unfinished key: none is left that this instance can lock. With one: another instance has locked it in the
    // meantime, and this one goes on with the next key.
    if (step.kind === "no-key" && unfinished === undefined) break;
    if (step.kind === "outage") {
      // Not even a key could be locked: the other keys would fail as well.
      if (step.key === undefined) throw step.error;
      outages.set(step.key, step.error);
    }
    unfinished = step.kind === "unfinished" ? step : undefined;
  }
  const [firstOutage] = outages.values();
  if (outages.size > 0) throw firstOutage;
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

/** A key that needs another transaction, and how many events that one takes at most. */
interface UnfinishedKey {
  readonly key: string;
  readonly eventsMax: number;
}

/** What one transaction of a redelivery did with the key that it locked. */
type RedeliveryStep =
  | { readonly kind: "no-key" }
  | ({ readonly kind: "unfinished" } & UnfinishedKey)
  | { readonly kind: "handled"; readonly key: string }
  | { readonly kind: "failed"; readonly key: string; readonly error: string }
  | { readonly kind: "outage"; readonly key: string | undefined; readonly error: unknown };

/** Counts and logs a step that ends a key's redelivery for now. */
function report({ metrics, log }: RedeliveryOptions, step: RedeliveryStep): void {
  switch (step.kind) {
    case "no-key":
    case "unfinished":
      break;
    case "handled":
      metrics.redeliveries.inc({ result: "handled" });
      log.info({ key: step.key, result: "handled" }, "parked key redelivered");
      break;
    case "failed":
      metrics.redeliveries.inc({ result: "failed" });
      log.error({ key: step.key, result: "failed", error: step.error }, "redelivery failed: the key stays parked");
      break;
    case "outage":
      metrics.redeliveries.inc({ result: "outage" });
      log.error({ key: step.key, ...errorFields(step.error) }, "redelivery of the key postponed by an outage");
      break;
    default:
      unreachable(step);
  }
}

/** Redelivers the next events of the unfinished key, or, without one, of the next requested key, in one transaction. */
async function redeliverStep(
  options: RedeliveryOptions,
  unfinished: UnfinishedKey | undefined,
  skippedKeys: readonly string[],
): Promise<RedeliveryStep> {
  const { database, service, onTransactionRetry: onRetry } = options;
  // Kept outside of the transaction, so that a failed COMMIT, too, is known to be an outage of this key.
  let locked: LockedKey | undefined;
  try {
    const { step, afterCommit } = await database.transaction(
      async (transaction): Promise<Redelivered> => {
        locked = await lockRequestedKey(transaction, service, unfinished?.key, skippedKeys);
        if (locked === undefined) return { step: { kind: "no-key" } };
        return await redeliverEvents(transaction, options, locked, unfinished?.eventsMax ?? eventsPerTransaction);
      },
      { onRetry },
    );
    afterCommit?.();
    return step;
  } catch (error) {
    return { kind: "outage", key: locked?.key, error };
  }
}

interface LockedKey {
  readonly key: string;
  readonly now: Date;
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

/** A step that is not committed yet, and what to call after its commit. */
interface Redelivered {
  readonly step: RedeliveryStep;
  readonly afterCommit?: () => void;
}

/** Redelivers at most `eventsMax` events of the locked key, and ends its parking after the last one. */
async function redeliverEvents(
  transaction: Transaction,
  options: RedeliveryOptions,
  locked: LockedKey,
  eventsMax: number,
): Promise<Redelivered> {
  const { service } = options;
  const { key } = locked;
  const rows = await transaction.query<ParkedEventRow>(
    `SELECT event_id, published_at, topic_partition, topic_offset, record_key, headers, payload
      FROM ${parkedEventTableName(service)} WHERE aggregate_id = ? ORDER BY position LIMIT ?`,
    [key, eventsMax + 1],
  );
  const events = rows.slice(0, eventsMax).map((row) => ({ eventId: row.event_id, record: recordOf(row) }));
  // A parked key without events can only be left by a deletion by hand. Then there is nothing to handle.
  const outcome = events.length === 0 ? nothingToHandle : await handleOrUndo(transaction, options, locked, events);
  if (outcome.kind === "fault") {
    // From now on each event has its own transaction, so that those before the faulty one have their effect.
    if (events.length > 1) return { step: { kind: "unfinished", key, eventsMax: 1 } };
    await recordFailure(transaction, service, locked, events[0], outcome);
    return { step: { kind: "failed", key, error: outcome.error } };
  }
  const { afterCommit } = outcome;
  if (rows.length > events.length) return { step: { kind: "unfinished", key, eventsMax }, afterCommit };
  await transaction.execute(`DELETE FROM ${parkedKeyTableName(service)} WHERE aggregate_id = ?`, [key]);
  return { step: { kind: "handled", key }, afterCommit };
}

/** The events were handled, or one has a fault and none was. */
type Outcome =
  | { readonly kind: "handled"; readonly afterCommit: () => void }
  | { readonly kind: "fault"; readonly fault: Fault; readonly error: string };

const nothingToHandle: Outcome = { kind: "handled", afterCommit: () => undefined };

/**
 * Handles the events and deletes them from the parked ones; or, if one has a fault, leaves everything as it was.
 * @throws an outage.
 */
async function handleOrUndo(
  transaction: Transaction,
  { service, handle }: RedeliveryOptions,
  { now }: LockedKey,
  events: readonly ParkedRecord[],
): Promise<Outcome> {
  const ids = events.map(({ eventId }) => eventId);
  let afterCommit: () => void;
  await transaction.execute("SAVEPOINT before_redelivery");
  try {
    // The events count as handled from now on, also for the pruning of the inbox.
    await transaction.execute(
      `UPDATE ${inboxTableName(service)} SET outcome = 'HANDLED', handled_at = ? WHERE event_id IN (?)`,
      [now, ids],
    );
    afterCommit = await handle(transaction, events);
  } catch (error) {
    const fault = faultOf(error);
    if (fault === undefined) throw error;
    await transaction.execute("ROLLBACK TO SAVEPOINT before_redelivery");
    return { kind: "fault", fault, error: describeFailure(error) };
  }
  await transaction.execute(`DELETE FROM ${parkedEventTableName(service)} WHERE event_id IN (?)`, [ids]);
  return { kind: "handled", afterCommit };
}

async function recordFailure(
  transaction: Transaction,
  service: string,
  { key, now }: LockedKey,
  event: ParkedRecord | undefined,
  { fault, error }: { readonly fault: Fault; readonly error: string },
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
        log.warn(errorFields(error), "redelivery met an outage; the next poll is delayed");
        await sleep(fullJitterMs(outagesInRow++, backoff), signal);
      }
    },
    () => undefined,
    { startNow: true },
  );
}
