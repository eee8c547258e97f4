/**
 * One attempt at a batch: a single transaction that records the events in the inbox, runs the handler on those that are
 * new, stores those whose key is parked, and commits all of it together.
 */
import type { Message } from "@bufbuild/protobuf";
import type { Database, OwnTransaction } from "../../services/kit/database.ts";
import { isDuplicateKey } from "../../services/kit/database-errors.ts";
import { type Effect, type Effects, noEffect } from "./effect.ts";
import { describeFailure, type Fault } from "./faults.ts";
import type { ReceivedEvent } from "./handler.ts";
import type { InboxMetrics } from "./metrics.ts";
import { parkEvents, parkKey } from "./parking.ts";
import { inboxRetryPolicy } from "./retry-policy.ts";
import { type Entry, insertInboxRows, isHandled, recordFresh } from "./rows.ts";

/** How many records of an attempt had which outcome, and how many events it published. */
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
}

export interface Attempts<M extends Message> {
  /** Handles the entries in one transaction. @throws the first error. Then nothing is committed, or it is unknown whether all is. */
  handle(entries: readonly Entry<M>[]): Promise<Summary>;
  /** Parks the entry's key instead of handling it. No-op if another instance has handled the event meanwhile. */
  park(entry: Entry<M>, failure: Failure): Promise<Summary>;
}

interface AttemptOptions<M extends Message> {
  readonly service: string;
  readonly database: Database;
  readonly newId: () => string;
  readonly effects: Effects<M>;
  readonly metrics: InboxMetrics;
  readonly onTransactionRetry: () => void;
}

export function createAttempts<M extends Message>(options: AttemptOptions<M>): Attempts<M> {
  const { database, effects, metrics } = options;

  const attempt = async (entries: readonly Entry<M>[], failure?: Failure): Promise<Summary> => {
    const isDone = !entries.some(isHandled) && (await recordUnhandled(options, entries));
    const { fresh, parked, effect }: Outcome<M> = isDone
      ? { fresh: entries, parked: [], effect: noEffect }
      : await database.transaction((transaction) => attemptInTransaction(transaction, options, entries, failure), {
          onRetry: options.onTransactionRetry,
          // Partitions that share a transaction are then retried one by one: the others need not wait for that lock again.
          retryLockWaits: !isShared(entries),
        });
    effects.committed(effect);
    const unhandled = fresh.filter((entry) => !isHandled(entry)).length;
    const duplicates = entries.length - fresh.length;
    metrics.events.inc({ outcome: "ignored" }, unhandled);
    metrics.events.inc({ outcome: "parked" }, parked.length);
    metrics.events.inc({ outcome: "duplicate" }, duplicates);
    if (parked.length > 0) metrics.parkedEvents.inc({ reason: failure?.fault ?? "BEHIND" }, parked.length);
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
  readonly effect: Effect<M>;
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
  const concerned = fresh.filter(isHandled);
  if (failure !== undefined) {
    for (const { identity } of concerned) {
      await parkKey(transaction, service, identity.key, {
        eventId: identity.eventId,
        fault: failure.fault,
        error: describeFailure(failure.error),
        attempts: inboxRetryPolicy.event.attemptsMax,
      });
      parkedKeys.add(identity.key);
    }
  }
  const parked = concerned.filter(({ identity }) => parkedKeys.has(identity.key));
  const effect = await effects.decide(transaction, eventsToHandle(concerned, parkedKeys));
  await parkEvents(
    transaction,
    service,
    parked.map(({ record, identity, decodeError }) => {
      const error = failure?.error ?? decodeError;
      return { record, identity, error: error === undefined ? undefined : describeFailure(error) };
    }),
  );
  await transaction.commit(effect.statements);
  return { fresh, parked, effect };
}

/**
 * Records entries that are not handled here: a single statement needs no transaction. Returns false if one of them was
 * there already; then none is recorded.
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

/** @throws UndecodableRecordError for an entry that does not decode, unless its key is parked. */
function eventsToHandle<M extends Message>(
  entries: readonly Entry<M>[],
  parkedKeys: ReadonlySet<string>,
): readonly ReceivedEvent<M>[] {
  return entries.flatMap(({ identity, decodeError, event }) => {
    if (parkedKeys.has(identity.key)) return [];
    if (decodeError !== undefined) throw decodeError;
    return event === undefined ? [] : [event];
  });
}
