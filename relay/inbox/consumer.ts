/**
 * The inbox consumer: a batch of records is one local transaction, with a number of statements that does not grow with
 * the batch. An event has its effect once, however often it is delivered. One that can never be
 * handled as things stand is found by halving its batch, and parked with its key (parking.ts).
 */
import type { Message, Registry } from "@bufbuild/protobuf";
import { Counter, Gauge, Histogram, type Registry as Metrics } from "prom-client";
import { decodePayload, fromRecord, typeOfRecord, UndecodableRecordError } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import type { Database, Row, Transaction } from "../../services/kit/database.ts";
import { isDuplicateKey } from "../../services/kit/database-errors.ts";
import { createGroupCommit } from "../../services/kit/group-commit.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { Statement } from "../../services/kit/statements.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import { consumeTopic, type TopicConsumer, type TopicRecord } from "../kafka/consumer.ts";
import type { Outbox } from "../outbox/append.ts";
import type { HintSender } from "../outbox/hint.ts";
import { inboxTableName } from "../tables.ts";
import type { BatchHandler, BatchResult, ReceivedEvent } from "./handler.ts";
import {
  createFailureStreak,
  createParkingMetrics,
  describeFailure,
  errorFields,
  type FaultReason,
  faultOf,
  identityOf,
  identityOfUndecodable,
  lockParkedKeys,
  type ParkedRecord,
  parkEvents,
  parkKey,
  publishedAtOf,
  type RecordIdentity,
  replayRequested,
  runHandler,
} from "./parking.ts";

export interface InboxOptions<M extends Message> {
  /** Names the inbox table, and the consumer group. */
  readonly service: string;
  readonly database: Database;
  /** Decodes the handled types. */
  readonly registry: Registry;
  /** The event types to handle. Others are skipped undecoded and counted, so that a new service publishes freely. */
  readonly handles: ReadonlySet<string>;
  /** Which events get an inbox row: those handled, or every event of the topic (the service reads a timeline there). */
  readonly records: "handled" | "all";
  readonly handle: BatchHandler<M>;
  /** The types that some receiver waits for: of others that are published here, the relay hears later. Default: all. */
  readonly urgentTypes?: ReadonlySet<string>;
  readonly outbox: Outbox;
  readonly hints: HintSender;
  readonly newId: () => string;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** After the commit, with the events that were handled in it. Must not throw. */
  readonly onCommitted?: (events: readonly ReceivedEvent<M>[]) => void;
}

/** The inbox of one service, without the broker. */
export interface Inbox {
  /**
   * Handles records, those of one partition in their order: in one transaction, and only where one of them is at fault
   * in several.
   * @param signal stop trying, and throw.
   * @throws what was an outage; a part of the batch may be committed, or nobody knows. To be done again, whole.
   */
  (records: readonly TopicRecord[], signal?: AbortSignal): Promise<void>;
  /** Replays the parked keys for which an operator asked. @throws what was an outage. To be called every now and then. */
  replayRequested(signal?: AbortSignal): Promise<void>;
  /** True while too many keys have failed in a row: nothing more is parked, and somebody has to look. */
  isStopped(): boolean;
}

/** Tries of an event that fails by itself, before its key is parked. */
const triesMax = 3;
const triesBackoff = { baseMs: 50, maxMs: 500 };
/** Different keys in a row, with no success between, that stop the consumer: then it is hardly the events' fault. */
const failingKeysMax = 5;

/** Opens the inbox of one service. */
export function createInbox<M extends Message>(options: InboxOptions<M>): Inbox {
  const { service, database, log } = options;
  const table = inboxTableName(service);
  const registers = [options.metrics];
  const counted = new Counter({
    name: "inbox_events_total",
    help: "Records by what became of them: handled, ignored, parked, duplicate, skipped (a type that is not handled here).",
    labelNames: ["outcome"],
    registers,
  });
  const retries = new Counter({
    name: "inbox_transaction_retries_total",
    help: "Transactions done again after a deadlock or a lock wait.",
    registers,
  });
  const duration = new Histogram({
    name: "inbox_batch_seconds",
    help: "From a batch's first statement to its last commit.",
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers,
  });
  const parking = createParkingMetrics(options.metrics);
  const onRetry = () => retries.inc();
  const streak = createFailureStreak({
    keysMax: failingKeysMax,
    onChange(stopped) {
      parking.stopped.set(stopped ? 1 : 0);
      if (stopped)
        log.error({ service, failingKeysMax }, "stopped: too many keys failed in a row, nothing more is parked");
      else log.info({ service }, "going on: events are handled again");
    },
  });

  const isUrgent = (type: string) => options.urgentTypes?.has(type) ?? true;

  /** Decides events that were not handled before. What it throws by itself is an event's fault. */
  const decide = async (transaction: Transaction, events: readonly ReceivedEvent<M>[]) => {
    if (events.length === 0) return { result: nothing, effect: [] };
    return await runHandler(transaction, async (watched) => {
      const result = await options.handle(watched, events);
      const { writes, publish, ignored } = result;
      const sql = `UPDATE ${table} SET outcome = 'IGNORED' WHERE event_id IN (?)`;
      const marks = ignored.length === 0 ? [] : [{ sql, values: [ignored] }];
      return { result, effect: [...writes, ...options.outbox.statements(publish), ...marks] };
    });
  };

  const committed = (events: readonly ReceivedEvent<M>[], result: BatchResult) => {
    counted.inc({ outcome: "handled" }, events.length - result.ignored.length);
    counted.inc({ outcome: "ignored" }, result.ignored.length);
    if (events.length > 0) streak.succeeds();
    if (result.publish.some(({ message }) => isUrgent(message.$typeName))) options.hints.send();
    else if (result.publish.length > 0) options.hints.sendLater();
    result.committed?.();
    options.onCommitted?.(events);
  };

  /** Records events that are not handled here: a single statement is a transaction by itself. False where one was known. */
  const recordAlone = async (entries: readonly Entry<M>[]) => {
    try {
      await database.pipeline([insertInbox(service, options.newId(), entries)]);
      return true;
    } catch (error) {
      if (isDuplicateKey(error)) return false;
      throw error;
    }
  };

  /** One transaction. With `failure` its only entry's key is parked, unless somebody else has handled it meanwhile. */
  const attempt = async (
    entries: readonly Entry<M>[],
    failure?: { readonly error: unknown; readonly reason: FaultReason },
  ): Promise<Summary> => {
    let events: readonly ReceivedEvent<M>[] = [];
    let result = nothing;
    let fresh: readonly Entry<M>[] = [];
    let parked: readonly Entry<M>[] = [];
    const inTransaction = () =>
      database.transaction(
        async (transaction) => {
          // A batch id of its own for every try: after a lost COMMIT, the rows of the first try are not ours.
          const recorded = await recordFresh(transaction, service, options.newId(), entries);
          fresh = recorded.entries;
          const { parkedKeys } = recorded;
          const concerned = fresh.filter(isHandled);
          if (failure !== undefined) {
            for (const { identity } of concerned) {
              await parkKey(transaction, service, identity.key, {
                eventId: identity.eventId,
                reason: failure.reason,
                error: describeFailure(failure.error),
                attempts: triesMax,
              });
              parkedKeys.add(identity.key);
            }
          }
          parked = concerned.filter(({ identity }) => parkedKeys.has(identity.key));
          events = concerned.flatMap(({ identity, fault, event }) => {
            if (parkedKeys.has(identity.key)) return [];
            if (fault !== undefined) throw fault;
            return event === undefined ? [] : [event];
          });
          const decided = await decide(transaction, events);
          result = decided.result;
          await parkEvents(
            transaction,
            service,
            parked.map(({ record, identity, fault }) => {
              const error = failure?.error ?? fault;
              return { record, identity, error: error === undefined ? undefined : describeFailure(error) };
            }),
          );
          await transaction.commit(decided.effect);
        },
        { onRetry },
      );
    if (entries.some(isHandled) || !(await recordAlone(entries))) await inTransaction();
    else fresh = entries;
    committed(events, result);
    const unhandled = fresh.filter((entry) => !isHandled(entry)).length;
    const duplicates = entries.length - fresh.length;
    counted.inc({ outcome: "ignored" }, unhandled);
    counted.inc({ outcome: "parked" }, parked.length);
    counted.inc({ outcome: "duplicate" }, duplicates);
    if (parked.length > 0) parking.parkedEvents.inc({ reason: failure?.reason ?? "BEHIND" }, parked.length);
    return {
      handled: events.length - result.ignored.length,
      ignored: unhandled + result.ignored.length,
      parked: parked.length,
      duplicates,
      published: result.publish.length,
    };
  };

  /** Halves what fails until the event at fault is alone: everything before it is committed by then. */
  const settle = async (entries: readonly Entry<M>[], signal?: AbortSignal): Promise<Summary> => {
    let failure: unknown;
    try {
      return await attempt(entries);
    } catch (error) {
      if (faultOf(error) === undefined || signal?.aborted) throw error;
      failure = error;
    }
    const [first, second] = entries;
    if (first === undefined) throw failure;
    if (second === undefined) return await settleAlone(first, failure, signal);
    log.warn({ partition: first.record.partition, records: entries.length, ...errorFields(failure) }, "batch halved");
    const middle = Math.ceil(entries.length / 2);
    const rest = entries.slice(middle);
    let left: Summary;
    try {
      left = await settle(entries.slice(0, middle), signal);
    } catch (error) {
      if (error instanceof StoppedError) await probe(rest, error);
      throw error;
    }
    if (signal?.aborted) throw failure;
    return sum([left, await settle(rest, signal)]);
  };

  /**
   * Stopped: tells bad events from a bad consumer by trying a few other keys, each at its first event. One that succeeds
   * lets the consumer go on; one that fails is not parked for it, and nothing of its key is tried.
   */
  const probe = async (entries: readonly Entry<M>[], stopped: StoppedError) => {
    for (const entry of entries) {
      const { key } = entry.identity;
      if (!streak.isStopped() || stopped.probesLeft === 0) return;
      if (stopped.keys.has(key)) continue;
      stopped.probesLeft--;
      try {
        await attempt([entry]);
      } catch (error) {
        if (faultOf(error) === undefined) throw error;
        stopped.keys.add(key);
      }
    }
  };

  const settleAlone = async (entry: Entry<M>, failure: unknown, signal?: AbortSignal): Promise<Summary> => {
    let error = failure;
    for (let tries = 1; tries < triesMax; tries++) {
      await sleep(fullJitterMs(tries, triesBackoff), signal);
      if (signal?.aborted) throw error;
      try {
        return await attempt([entry]);
      } catch (again) {
        if (faultOf(again) === undefined) throw again;
        error = again;
      }
    }
    const reason = faultOf(error);
    const { eventId, key, type } = entry.identity;
    if (reason === undefined) throw error;
    if (streak.fails(key)) throw new StoppedError(key, error);
    const summary = await attempt([entry], { error, reason });
    if (summary.parked > 0) log.error({ key, eventId, type, reason, ...errorFields(error) }, "key parked");
    return summary;
  };

  const handleRecords = async (records: readonly TopicRecord[], signal?: AbortSignal) => {
    const startedMs = performance.now();
    const { entries, skipped } = read(records, options);
    const settled = entries.length === 0 ? noSummary : await settle(entries, signal);
    const seconds = (performance.now() - startedMs) / 1_000;
    const twice = records.length - skipped - entries.length;
    duration.observe(seconds);
    counted.inc({ outcome: "duplicate" }, twice);
    counted.inc({ outcome: "skipped" }, skipped);
    const summary = { ...settled, duplicates: settled.duplicates + twice };
    log.info({ partition: records[0]?.partition, records: records.length, skipped, ...summary, seconds }, "batch");
  };

  const replay = async (transaction: Transaction, parked: readonly ParkedRecord[]) => {
    const events = parked.map(({ eventId, record }) => {
      // What was recorded under another id, for want of one of its own, stays it.
      const envelope = { ...fromRecord(record), id: eventId };
      return { envelope, message: decodePayload(envelope, options.registry) as M };
    });
    const { result, effect } = await decide(transaction, events);
    await transaction.pipeline(effect);
    return () => committed(events, result);
  };

  return Object.assign(handleRecords, {
    replayRequested: (signal?: AbortSignal) =>
      replayRequested({ service, database, log, metrics: parking, handle: replay, onRetry }, signal),
    isStopped: streak.isStopped,
  });
}

/** Other keys that are tried at each try of a batch while the consumer is stopped. */
const probesMax = 10;

/** An event is at fault as it seems, and is not parked, since the consumer itself seems to be. */
class StoppedError extends Error {
  override readonly name = "StoppedError";
  /** Keys of this batch whose next event was tried and failed. */
  readonly keys: Set<string>;
  probesLeft = probesMax;
  constructor(key: string, cause: unknown) {
    super(`${failingKeysMax} keys failed in a row, ${key} the last: nothing is parked until an event is handled.`, {
      cause,
    });
    this.keys = new Set([key]);
  }
}

const nothing: BatchResult = { writes: [], publish: [], ignored: [] };

interface Summary {
  readonly handled: number;
  readonly ignored: number;
  readonly parked: number;
  readonly duplicates: number;
  readonly published: number;
}

const noSummary: Summary = { handled: 0, ignored: 0, parked: 0, duplicates: 0, published: 0 };

function sum(summaries: readonly Summary[]): Summary {
  return summaries.reduce(
    (total, it) => ({
      handled: total.handled + it.handled,
      ignored: total.ignored + it.ignored,
      parked: total.parked + it.parked,
      duplicates: total.duplicates + it.duplicates,
      published: total.published + it.published,
    }),
    noSummary,
  );
}

interface Entry<M extends Message> {
  readonly record: TopicRecord;
  readonly identity: RecordIdentity;
  /** Undefined for a type that is recorded and not handled, and for what does not decode. */
  readonly event: ReceivedEvent<M> | undefined;
  /** Why a record of a handled type does not decode. */
  readonly fault: UndecodableRecordError | undefined;
}

const isHandled = ({ event, fault }: Entry<Message>) => event !== undefined || fault !== undefined;

/** The records that get an inbox row, each event once (a batch may hold one twice), and how many get none. */
function read<M extends Message>(records: readonly TopicRecord[], options: InboxOptions<M>) {
  const entries = new Map<string, Entry<M>>();
  let skipped = 0;
  for (const record of records) {
    const entry = entryOf(record, options);
    if (entry === undefined) skipped++;
    else if (!entries.has(entry.identity.eventId)) entries.set(entry.identity.eventId, entry);
  }
  return { entries: [...entries.values()], skipped };
}

function entryOf<M extends Message>(record: TopicRecord, options: InboxOptions<M>): Entry<M> | undefined {
  const type = typeOfRecord(record);
  const handled = type !== undefined && options.handles.has(type);
  if (!handled && (type === undefined || options.records === "handled")) return undefined;
  try {
    const envelope = fromRecord(record);
    const identity = identityOf(envelope);
    const event = handled ? { envelope, message: decodePayload(envelope, options.registry) as M } : undefined;
    return { record, identity, event, fault: undefined };
  } catch (error) {
    if (!(error instanceof UndecodableRecordError)) throw error;
    // Not handled here, and not even an event: there is nothing to record.
    if (!handled) return undefined;
    return { record, identity: identityOfUndecodable(record, type), event: undefined, fault: error };
  }
}

const inboxColumns =
  "event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset, batch_id, outcome";

/** A row for each event. A duplicate key is thrown: then none is inserted. */
function insertInbox<M extends Message>(service: string, batchId: string, entries: readonly Entry<M>[]): Statement {
  const rows = entries.map((entry) => {
    const { record, identity } = entry;
    const publishedAt = publishedAtOf(record);
    return [
      identity.eventId,
      identity.key,
      identity.type,
      identity.source,
      identity.occurredAt ?? publishedAt,
      publishedAt,
      record.partition,
      record.offset,
      batchId,
      isHandled(entry) ? "HANDLED" : "IGNORED",
    ];
  });
  return { sql: `INSERT INTO ${inboxTableName(service)} (${inboxColumns}) VALUES ?`, values: [rows] };
}

/**
 * Inserts the inbox rows, and tells which events were not there before and which of the keys are parked. Mostly all of
 * them are new: one round trip. Only where the database says that one is not is asked which.
 */
async function recordFresh<M extends Message>(
  transaction: Transaction,
  service: string,
  batchId: string,
  entries: readonly Entry<M>[],
): Promise<{ readonly entries: readonly Entry<M>[]; readonly parkedKeys: Set<string> }> {
  const table = inboxTableName(service);
  const insert = insertInbox(service, batchId, entries);
  const parkedKeysOf = (some: readonly Entry<M>[]) =>
    lockParkedKeys(
      service,
      some.filter(isHandled).map(({ identity }) => identity.key),
    );
  const keysOf = (rows: readonly Row[] = []) => new Set(rows.map(({ aggregate_id: key }) => key as string));
  try {
    const [, parked] = await transaction.pipeline([insert, ...parkedKeysOf(entries)]);
    return { entries, parkedKeys: keysOf(parked) };
  } catch (error) {
    // It has undone that statement alone: the transaction goes on.
    if (!isDuplicateKey(error)) throw error;
  }
  // Not INSERT IGNORE, which would also hide a value that is cut or out of range.
  const [, found = []] = await transaction.pipeline([
    { ...insert, sql: `${insert.sql} ON DUPLICATE KEY UPDATE event_id = ${table}.event_id` },
    {
      sql: `SELECT event_id FROM ${table} WHERE event_id IN (?) AND batch_id = ?`,
      values: [entries.map(({ identity }) => identity.eventId), batchId],
    },
  ]);
  const ours = new Set(found.map((row) => row.event_id as string));
  const fresh = entries.filter(({ identity }) => ours.has(identity.eventId));
  const [parked] = await transaction.pipeline(parkedKeysOf(fresh));
  return { entries: fresh, parkedKeys: keysOf(parked) };
}

/** After this time a record that nobody waits for waits for no other one any more. */
const deferMaxMs = 100;
const replayIntervalMs = 1_000;
const replayBackoff = { baseMs: 2_000, maxMs: 30_000 };

/**
 * An inbox that handles what several partitions bring at the same time in one transaction: on few cores, a transaction
 * costs more than what is in it. Which records share one never matters to their effect.
 */
function sharingTransactions(inbox: Inbox, recordsMax: number) {
  interface Batch {
    readonly records: readonly TopicRecord[];
    readonly signal: AbortSignal;
  }
  const group = createGroupCommit<Batch, undefined>({
    sizeMax: recordsMax,
    sizeOf: ({ records }) => records.length,
    waitingMax: 1_000,
    gathersTurn: true,
    // The inbox itself finds out whether a record is to blame.
    isOutage: () => true,
    async commit(batches) {
      const signal = AbortSignal.any(batches.map((batch) => batch.signal));
      await inbox(
        batches.flatMap((batch) => batch.records),
        signal,
      );
      return batches.map(() => undefined);
    },
  });
  return (records: readonly TopicRecord[], signal: AbortSignal) => group.submit({ records, signal }, signal);
}

/**
 * Joins the service's consumer group and handles every batch through `inbox`, until closed; replays what operators ask
 * for beside it. What `inbox` throws is an outage of this consumer: it backs off and tries the same batch again, and
 * loses nothing.
 */
export async function startConsumer(options: {
  readonly service: string;
  readonly topic: string;
  readonly kafka: KafkaOptions;
  readonly inbox: Inbox;
  /**
   * The types whose effect somebody waits for. Others, those that are not handled here among them, come with the next of
   * these on their partition, or after 100 ms. Default: all.
   */
  readonly urgentTypes?: ReadonlySet<string>;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** The consumer has stopped for good: end the process. */
  readonly onCrash: (error: Error) => void;
  /** Records in one transaction, at the most. Default 500. */
  readonly batchSizeMax?: number;
}): Promise<TopicConsumer> {
  const { inbox, urgentTypes, log, batchSizeMax = 500 } = options;
  const handle = sharingTransactions(inbox, batchSizeMax);
  const failures = new Counter({
    name: "inbox_batch_failures_total",
    help: "Batches that failed and were tried again.",
    registers: [options.metrics],
  });
  const lag = new Gauge({
    name: "inbox_lag_records",
    help: "Records on the partition that are not handled yet, as of its last batch.",
    labelNames: ["group", "partition"],
    registers: [options.metrics],
  });
  const consumer = await consumeTopic({
    ...options.kafka,
    groupId: options.service,
    topic: options.topic,
    from: "earliest",
    commitOffsets: true,
    // All partitions of a fetch come side by side, and share transactions.
    partitionsConcurrently: 12,
    batchSizeMax,
    mayDefer: (record) => urgentTypes !== undefined && !urgentTypes.has(typeOfRecord(record) ?? ""),
    deferMaxMs,
    onCrash: options.onCrash,
    // A partition that went to another member is that one's to show.
    onAssigned: () => lag.reset(),
    async onBatch(records, signal, endOffset) {
      const [first, last] = [records[0], records.at(-1)];
      if (first === undefined || last === undefined) return;
      const labels = { group: options.service, partition: first.partition };
      const behind = (next: bigint) => lag.set(labels, Number(BigInt(endOffset) - next));
      behind(BigInt(first.offset));
      for (let attempt = 0; ; attempt++) {
        try {
          await handle(records, signal);
          behind(BigInt(last.offset) + 1n);
          return;
        } catch (error) {
          failures.inc();
          log.error({ partition: first.partition, offset: first.offset, ...errorFields(error) }, "batch failed");
          if (signal.aborted) throw error;
          await sleep(fullJitterMs(attempt, { baseMs: 50, maxMs: 2_000 }), signal);
          if (signal.aborted) throw error;
        }
      }
    },
  });

  const closing = new AbortController();
  const replays = (async () => {
    for (let failed = 0; !closing.signal.aborted; ) {
      try {
        await inbox.replayRequested(closing.signal);
        failed = 0;
        await sleep(replayIntervalMs, closing.signal);
      } catch (error) {
        log.warn(errorFields(error), "replays wait");
        await sleep(replayIntervalMs + fullJitterMs(failed++, replayBackoff), closing.signal);
      }
    }
  })();
  return {
    isReady: consumer.isReady,
    async close() {
      closing.abort();
      await Promise.all([consumer.close(), replays]);
    },
  };
}
