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
  readonly onTransactionRetry: () => void;
}

export function createAttempts<M extends Message>(options: AttemptOptions<M>): Attempts<M> {
  const { database, effects, metrics } = options;

  const attempt = async (entries: readonly Entry<M>[], failure?: Failure): Promise<Summary> => {
    // If there is nothing to handle, one statement without a transaction records the entries.
    const isRecorded = !entries.some(isHandled) && (await recordUnhandled(options, entries));
    const { fresh, parked, effect }: Outcome<M> = isRecorded
      ? { fresh: entries, parked: [], effect: noEffect }
      : await database.transaction((transaction) => attemptInTransaction(transaction, options, entries, failure), {
          onRetry: options.onTransactionRetry,
        });
    effects.afterCommit(effect);
    const unhandled = fresh.filter((entry) => !isHandled(entry)).length;
    const duplicates = entries.length - fresh.length;
    metrics.events.inc({ outcome: "ignored" }, unhandled);
    metrics.events.inc({ outcome: "parked" }, parked.length);
    metrics.events.inc({ outcome: "duplicate" }, duplicates);
    if (parked.length > 0) metrics.parkedEvents.inc({ reason: failure?.fault ?? behindParkedKey }, parked.length);
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
  const toHandle = fresh.filter(isHandled);
  if (failure !== undefined) {
    for (const { identity } of toHandle) {
      await parkKey(transaction, service, identity.key, {
        eventId: identity.eventId,
        fault: failure.fault,
        error: describeFailure(failure.error),
        attempts: inboxRetryPolicy.event.attemptsMax,
      });
      parkedKeys.add(identity.key);
    }
  }
  const parked = toHandle.filter(({ identity }) => parkedKeys.has(identity.key));
  const effect = await effects.decide(transaction, eventsToHandle(toHandle, parkedKeys));
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
