/**
 * One attempt at a batch: a single transaction that records the events in the inbox, runs the handler on those that are
 * new, parks the keys of records that do not decode, stores the events of parked keys, and commits all of it together.
 */
import type { Message } from "@bufbuild/protobuf";
import type { Database, OwnTransaction } from "../../services/kit/database.ts";
import { isDuplicateKey } from "../../services/kit/database-errors.ts";
import type { Logger } from "../../services/kit/log.ts";
import { type Effect, type Effects, noEffect } from "./effect.ts";
import { describeFailure, errorFields, type Fault } from "./faults.ts";
import type { ReceivedEvent } from "./handler.ts";
import type { InboxMetrics } from "./metrics.ts";
import { parkEvents, parkKeys } from "./parking.ts";
import { type Entry, insertInboxRows, isHandled, recordFresh } from "./rows.ts";

/** The records of an attempt by outcome, and the number of events that it published. */
export interface Summary {
  readonly handled: number;
  readonly ignored: number;
  readonly parked: number;
  readonly duplicates: number;
  readonly published: number;
}

export const noSummary: Summary = { handled: 0, ignored: 0, parked: 0, duplicates: 0, published: 0 };

export function addSummaries(one: Summary, other: Summary): Summary {
  return {
    handled: one.handled + other.handled,
    ignored: one.ignored + other.ignored,
    parked: one.parked + other.parked,
    duplicates: one.duplicates + other.duplicates,
    published: one.published + other.published,
  };
}

/** Why an event is parked. */
export interface Failure {
  readonly error: unknown;
  readonly fault: Fault;
  readonly attempts: number;
}

/**
 * The reason to park an event whose key is parked already. It is no fault, and it is the reason even if such an event has a
 * fault of its own.
 */
const behindParkedKey = "BEHIND";

export interface Attempts<M extends Message> {
  /**
   * Handles the entries in one transaction.
   * @throws the first error. Nothing is committed then, unless the answer to COMMIT was lost: then everything may be.
   */
  handle(entries: readonly Entry<M>[]): Promise<Summary>;
  /** Parks the entry's key instead of handling the entry. No-op if another instance has handled the event meanwhile. */
  park(entry: Entry<M>, failure: Failure): Promise<Summary>;
}

interface AttemptOptions<M extends Message> {
  readonly service: string;
  readonly database: Database;
  readonly newId: () => string;
  readonly effects: Effects<M>;
  readonly metrics: InboxMetrics;
  readonly log: Logger;
  readonly onTransactionRetry: () => void;
}

export function createAttempts<M extends Message>(options: AttemptOptions<M>): Attempts<M> {
  const { database, effects, metrics, log } = options;

  const attempt = async (entries: readonly Entry<M>[], failure?: Failure): Promise<Summary> => {
    // If there is nothing to handle, one statement without a transaction records the entries.
    const isRecorded = !entries.some(isHandled) && (await recordUnhandled(options, entries));
    const { fresh, parked, failed, effect }: Outcome<M> = isRecorded
      ? { fresh: entries, parked: [], failed: [], effect: noEffect }
      : await database.transaction((transaction) => attemptInTransaction(transaction, options, entries, failure), {
          onRetry: options.onTransactionRetry,
          // Partitions that share a transaction are then retried one by one: the others need not wait for that lock again.
          retryLockWaits: !isShared(entries),
        });
    effects.afterCommit(effect);
    const unhandled = fresh.filter((entry) => !isHandled(entry)).length;
    const duplicates = entries.length - fresh.length;
    metrics.events.inc({ outcome: "ignored" }, unhandled);
    metrics.events.inc({ outcome: "parked" }, parked.length);
    metrics.events.inc({ outcome: "duplicate" }, duplicates);
    if (parked.length > failed.length)
      metrics.parkedEvents.inc({ reason: behindParkedKey }, parked.length - failed.length);
    for (const { entry, fault, error } of failed) {
      const { key, eventId, type } = entry.identity;
      metrics.parkedEvents.inc({ reason: fault });
      log.error({ key, eventId, type, reason: fault, ...errorFields(error) }, "key parked");
    }
    const { ignored, publish } = effect.result;
    return {
      handled: effect.events.length - ignored.length,
      ignored: unhandled + ignored.length,
      parked: parked.length,
      duplicates,
      published: publish.length,
    };
  };

  return { handle: (entries) => attempt(entries), park: (entry, failure) => attempt([entry], failure) };
}

/** True if the entries are from several partitions. */
function isShared(entries: readonly Entry<Message>[]): boolean {
  return entries.some(({ record }) => record.partition !== entries[0]?.record.partition);
}

/** What a transaction leads to. */
interface Outcome<M extends Message> {
  /** The entries that were new to the service. */
  readonly fresh: readonly Entry<M>[];
  readonly parked: readonly Entry<M>[];
  /** Those of them whose keys are parked because of them. */
  readonly failed: readonly FailedEntry<M>[];
  readonly effect: Effect<M>;
}

interface FailedEntry<M extends Message> extends Failure {
  readonly entry: Entry<M>;
}

/** The whole transaction. With `failure`, it parks the keys of the entries instead of handling them. */
async function attemptInTransaction<M extends Message>(
  transaction: OwnTransaction,
  { service, newId, effects }: AttemptOptions<M>,
  entries: readonly Entry<M>[],
  failure: Failure | undefined,
): Promise<Outcome<M>> {
  // Each attempt has a batch id of its own: after a lost COMMIT, the rows of the previous attempt must not look fresh.
  const { fresh, parkedKeys } = await recordFresh(transaction, service, newId(), entries);
  const { events, parked, failed } = sortOut(fresh.filter(isHandled), parkedKeys, failure);
  await parkKeys(
    transaction,
    service,
    failed.map(({ entry: { identity }, error, fault, attempts }) => {
      return { key: identity.key, eventId: identity.eventId, fault, error: describeFailure(error), attempts };
    }),
  );
  const effect = await effects.decide(transaction, events);
  await parkEvents(
    transaction,
    service,
    parked.map(({ record, identity, decodeError }) => {
      const error = failure?.error ?? decodeError;
      return { record, identity, error: error === undefined ? undefined : describeFailure(error) };
    }),
  );
  await transaction.commit(effect.statements);
  return { fresh, parked, failed, effect };
}

/**
 * Separates what is handled from what is parked. A record that does not decode parks its key from there on: the events of
 * the key before it are handled. It needs no further attempt, and says nothing about the consumer.
 */
function sortOut<M extends Message>(
  entries: readonly Entry<M>[],
  parkedKeys: ReadonlySet<string>,
  failure: Failure | undefined,
) {
  const keys = new Set(parkedKeys);
  const events: ReceivedEvent<M>[] = [];
  const parked: Entry<M>[] = [];
  const failed: FailedEntry<M>[] = [];
  for (const entry of entries) {
    const { key } = entry.identity;
    const { decodeError: error } = entry;
    const fault =
      failure ?? (error === undefined ? undefined : ({ error, fault: "UNDECODABLE", attempts: 1 } as const));
    if (fault !== undefined && !keys.has(key)) {
      keys.add(key);
      failed.push({ entry, ...fault });
    }
    if (keys.has(key)) parked.push(entry);
    else if (entry.event !== undefined) events.push(entry.event);
  }
  return { events, parked, failed };
}

/**
 * Records entries that are not handled here. Returns false if one of them was there already; then none is recorded, because
 * the statement fails as a whole.
 */
async function recordUnhandled<M extends Message>(
  { service, database, newId }: AttemptOptions<M>,
  entries: readonly Entry<M>[],
): Promise<boolean> {
  try {
    await database.pipeline([insertInboxRows(service, newId(), entries)]);
    return true;
  } catch (error) {
    if (isDuplicateKey(error)) return false;
    throw error;
  }
}
