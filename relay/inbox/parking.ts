/**
 * Parking: an event that can never be handled as things stand is put aside together with every later event of its key,
 * in order, so that its neighbours go on. An operator asks for a replay; the service itself carries it out.
 */
import { createHash } from "node:crypto";
import { Counter, Gauge, type Registry as Metrics } from "prom-client";
import { type ReceivedEnvelope, UndecodableRecordError } from "../../proto/envelope.ts";
import type { Database, Queryable, Transaction } from "../../services/kit/database.ts";
import { errorNumber, isDataError, RowsChangedError } from "../../services/kit/database-errors.ts";
import { causesOf, describeError, UnavailableError } from "../../services/kit/errors.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { Statement } from "../../services/kit/statements.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { OutboxAppendError } from "../outbox/append.ts";
import { inboxTableName, parkedEventTableName, parkedKeyTableName } from "../tables.ts";

/**
 * Why an event is parked, the whole list:
 * - `UNDECODABLE`: a record of a handled type that is no event, or whose payload is not of its type.
 * - `DATA`: the database refuses what the event leads to, as data.
 * - `HANDLER`: the service's own code threw.
 * - `APPEND`: what it would publish can never be delivered.
 */
export type FaultReason = "UNDECODABLE" | "DATA" | "HANDLER" | "APPEND";

/** Thrown by the service's own code while no statement of the transaction had failed. `cause` is what it threw. */
export class HandlerError extends Error {
  override readonly name = "HandlerError";
}

/**
 * Sorts what went wrong while events were handled: a reason to park one of them, or undefined for an outage of this
 * consumer. The list is closed; whatever is not on it is an outage.
 */
export function faultOf(error: unknown): FaultReason | undefined {
  const thrown = originOf(error);
  if (thrown instanceof UndecodableRecordError) return "UNDECODABLE";
  if (thrown instanceof OutboxAppendError) return "APPEND";
  if (isDataError(thrown)) return "DATA";
  // The rows were locked: it has not read what it writes.
  if (thrown instanceof RowsChangedError) return "HANDLER";
  return error instanceof HandlerError && !isFromOutside(thrown) ? "HANDLER" : undefined;
}

/** What the service's code threw, or the error itself. */
function originOf(error: unknown): unknown {
  return error instanceof HandlerError ? error.cause : error;
}

/** A server's answer, a driver's or the operating system's error, also where the service's code has wrapped it. */
function isFromOutside(error: unknown): boolean {
  if (errorNumber(error) !== undefined) return true;
  for (const it of causesOf(error)) {
    const { code } = it as Error & { code?: unknown };
    // ERR_…: what the runtime says of a bad argument; that is the code's own fault.
    if (it instanceof UnavailableError || (typeof code === "string" && !code.startsWith("ERR_"))) return true;
  }
  return false;
}

/**
 * Runs the service's own code on `transaction`. What it throws by itself comes out as {@link HandlerError}; after a
 * statement that failed, everything comes out as it is: some drivers' errors look like any other.
 */
export async function runHandler<T>(
  transaction: Transaction,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  let statementFailed = false;
  const watched = async <R>(statement: Promise<R>): Promise<R> => {
    try {
      return await statement;
    } catch (error) {
      statementFailed = true;
      throw error;
    }
  };
  try {
    return await work({
      transaction: true,
      query: (sql, values) => watched(transaction.query(sql, values)),
      execute: (sql, values) => watched(transaction.execute(sql, values)),
      pipeline: (statements) => watched(transaction.pipeline(statements)),
    });
  } catch (error) {
    if (statementFailed) throw error;
    throw new HandlerError(describeError(error), { cause: error });
  }
}

/** What an operator reads of an event's failure. No statement, whose values may be payment details. */
export function describeFailure(error: unknown): string {
  return describeError(originOf(error));
}

/** The fields of a log line about an error, without the statement that drivers attach. */
export function errorFields(error: unknown): { readonly error: string; readonly stack: string | undefined } {
  const origin = originOf(error);
  return { error: describeFailure(error), stack: origin instanceof Error ? origin.stack : undefined };
}

/** Tells bad events from a bad consumer: when several keys fail with no success between, it is the consumer. */
export interface FailureStreak {
  /** Notes that `key` failed for good; true when it must not be parked, since the consumer is stopped. */
  fails(key: string): boolean;
  /** Notes that events were handled: whatever failed before was their own fault, or is mended. */
  succeeds(): void;
  isStopped(): boolean;
}

/** @param options.keysMax different keys in a row that stop the consumer. */
export function createFailureStreak(options: {
  readonly keysMax: number;
  readonly onChange: (stopped: boolean) => void;
}): FailureStreak {
  const keys = new Set<string>();
  let stopped = false;
  const become = (value: boolean) => {
    if (stopped === value) return;
    stopped = value;
    options.onChange(value);
  };
  return {
    fails(key) {
      keys.add(key);
      if (keys.size >= options.keysMax) become(true);
      return stopped;
    },
    succeeds() {
      keys.clear();
      become(false);
    },
    isStopped: () => stopped,
  };
}

/** What a record says of itself, in the shape in which it is recorded: every part fits its column. */
export interface RecordIdentity {
  readonly eventId: string;
  readonly key: string;
  readonly type: string;
  readonly source: string;
  /** Undefined where the record does not tell. */
  readonly occurredAt: Date | undefined;
}

const eventIdLengthMax = 36;
const keyLengthMax = 128;
const sourceLengthMax = 128;
/** The range of TIMESTAMP. */
const timeMin = new Date(1_000);
const timeMax = new Date("2038-01-19T03:14:07.999Z");

// Databases compare strings with trailing blanks cut, JavaScript does not: what ends in one must not get in.
const fitsEventId = (id: string) => id.length <= eventIdLengthMax && /^[\x21-\x7e]+$/.test(id);
const fitsKey = (key: string) => key !== "" && lengthOf(key) <= keyLengthMax && !key.endsWith(" ");
const fitsTime = (time: Date) => time >= timeMin && time <= timeMax;

/** In characters, as the database counts them. */
function lengthOf(value: string): number {
  return value.length <= keyLengthMax ? value.length : [...value].length;
}

/**
 * The identity of an event that was decoded.
 * @throws UndecodableRecordError that names the part that could not be recorded.
 */
export function identityOf(envelope: ReceivedEnvelope): RecordIdentity {
  const { id, aggregateId, type, ceSource, occurredAt } = envelope;
  const misfit = (what: string) => new UndecodableRecordError(`${what} does not fit the inbox.`);
  if (!fitsEventId(id)) throw misfit("ce_id");
  if (!fitsKey(aggregateId)) throw misfit("The key");
  if (lengthOf(type) > keyLengthMax) throw misfit("ce_type");
  if (lengthOf(ceSource) > sourceLengthMax) throw misfit("ce_source");
  if (!fitsTime(occurredAt)) throw misfit("ce_time");
  return { eventId: id, key: aggregateId, type, source: ceSource, occurredAt };
}

/**
 * The identity of a record that is no event. Its own id and key where they can be used, so that duplicates drop out and
 * the order of its key is kept; else digests, which are the same at every delivery and belong to nobody else.
 */
export function identityOfUndecodable(record: TopicRecord, type: string): RecordIdentity {
  const own = digestOf([
    String(record.partition),
    record.offset,
    record.publishedAt.toISOString(),
    record.key ?? "",
    record.value ?? "",
  ]);
  const id = headerText(record, "ce_id");
  const key = record.key === null ? headerText(record, "ce_subject") : new TextDecoder().decode(record.key);
  return {
    eventId: id !== undefined && fitsEventId(id) ? id : own,
    key: key === undefined || key === "" ? own : fitsKey(key) ? key : digestOf([key]),
    type,
    source: (headerText(record, "ce_source") ?? "").slice(0, sourceLengthMax),
    occurredAt: undefined,
  };
}

/** As long as an event id may be. */
function digestOf(parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return `raw-${hash.digest("hex")}`.slice(0, eventIdLengthMax);
}

function headerText(record: TopicRecord, name: string): string | undefined {
  const first = [record.headers?.[name]].flat()[0];
  return first === undefined || typeof first === "string" ? first : new TextDecoder().decode(first as Uint8Array);
}

/** When the record was produced, as far as it can be recorded: a producer may claim any time. */
export function publishedAtOf(record: TopicRecord): Date {
  const { publishedAt } = record;
  return publishedAt < timeMin ? timeMin : publishedAt > timeMax ? timeMax : publishedAt;
}

/**
 * Reads which of the keys are parked, as `aggregate_id`. Their rows are locked until the transaction ends: a replay and a
 * new event of the same key wait for each other. To be asked after the inbox insert, by which instances that got the same
 * event wait for each other. None for no keys.
 */
export function lockParkedKeys(service: string, keys: readonly string[]): readonly Statement[] {
  if (keys.length === 0) return [];
  // By force: a scan would wait for keys that are none of ours.
  const sql = `SELECT aggregate_id FROM ${parkedKeyTableName(service)} FORCE INDEX (PRIMARY)
      WHERE aggregate_id IN (?) ORDER BY aggregate_id FOR UPDATE`;
  return [{ sql, values: [[...new Set(keys)]] }];
}

/** An event that failed for good, and why. */
export interface Failure {
  readonly eventId: string;
  readonly reason: FaultReason;
  readonly error: string;
  readonly attempts: number;
}

/** Parks a key. One that is parked already stays as it is. */
export async function parkKey(transaction: Transaction, service: string, key: string, failure: Failure): Promise<void> {
  const table = parkedKeyTableName(service);
  await transaction.execute(
    `INSERT INTO ${table} (aggregate_id, event_id, reason, error, attempts) VALUES (?)
      ON DUPLICATE KEY UPDATE aggregate_id = ${table}.aggregate_id`,
    [[key, failure.eventId, failure.reason, failure.error, failure.attempts]],
  );
}

/** An event on its way to the parked ones. Its key is locked. */
export interface EventToPark {
  readonly record: TopicRecord;
  readonly identity: RecordIdentity;
  /** What is wrong with it; undefined where it only waits behind another. */
  readonly error: string | undefined;
}

/** Well below the smallest `max_allowed_packet` in use, also when written in hexadecimal. */
const insertSizeMaxBytes = 1_000_000;

/** Puts events behind their keys, in the order given, and marks their inbox rows. */
export async function parkEvents(
  transaction: Transaction,
  service: string,
  events: readonly EventToPark[],
): Promise<void> {
  if (events.length === 0) return;
  const table = parkedEventTableName(service);
  const insert = async (rows: readonly (readonly unknown[])[]) => {
    // One that waits here already, although its inbox row is gone, goes on waiting in its place.
    await transaction.execute(
      `INSERT INTO ${table}
        (event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset,
         record_key, headers, payload, error) VALUES ? ON DUPLICATE KEY UPDATE event_id = ${table}.event_id`,
      [rows],
    );
  };
  let rows: (readonly unknown[])[] = [];
  let sizeBytes = 0;
  for (const { record, identity, error } of events) {
    const headers = encodeHeaders(record.headers);
    const rowBytes = (record.value?.length ?? 0) + (record.key?.length ?? 0) + headers.length;
    if (rows.length > 0 && sizeBytes + rowBytes > insertSizeMaxBytes) {
      await insert(rows);
      rows = [];
      sizeBytes = 0;
    }
    sizeBytes += rowBytes;
    rows.push([
      identity.eventId,
      identity.key,
      identity.type,
      identity.source,
      identity.occurredAt ?? null,
      publishedAtOf(record),
      record.partition,
      record.offset,
      bytesOf(record.key),
      headers,
      bytesOf(record.value),
      error ?? null,
    ]);
  }
  await insert(rows);
  await transaction.execute(`UPDATE ${inboxTableName(service)} SET outcome = 'PARKED' WHERE event_id IN (?)`, [
    events.map(({ identity }) => identity.eventId),
  ]);
}

const bytesOf = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value));

type StoredHeader = string | { readonly base64: string };

/** Text where it is text, so that an operator can read it; byte for byte in any case. */
export function encodeHeaders(headers: TopicRecord["headers"]): string {
  const encode = (value: Uint8Array | string): StoredHeader => {
    const bytes = Buffer.from(value as Uint8Array);
    const text = bytes.toString("utf8");
    return Buffer.from(text, "utf8").equals(bytes) ? text : { base64: bytes.toString("base64") };
  };
  const pairs = Object.entries(headers ?? {}).flatMap(([name, value]) => {
    if (value === undefined) return [];
    return [[name, Array.isArray(value) ? value.map(encode) : encode(value as Uint8Array | string)] as const];
  });
  return JSON.stringify(pairs);
}

/** The headers that {@link encodeHeaders} wrote, as the broker would deliver them. */
export function decodeHeaders(stored: string): NonNullable<TopicRecord["headers"]> {
  const decode = (value: StoredHeader) =>
    typeof value === "string" ? Buffer.from(value, "utf8") : Buffer.from(value.base64, "base64");
  const pairs = JSON.parse(stored) as readonly (readonly [string, StoredHeader | readonly StoredHeader[]])[];
  return Object.fromEntries(
    pairs.map(([name, value]) => [
      name,
      Array.isArray(value) ? (value as readonly StoredHeader[]).map(decode) : decode(value as StoredHeader),
    ]),
  );
}

/** The figures of parking. */
export interface ParkingMetrics {
  readonly parkedEvents: Counter<"reason">;
  readonly parkedKeys: Gauge;
  readonly replays: Counter<"result">;
  readonly stopped: Gauge;
}

/** Registers the figures. Once a registry. */
export function createParkingMetrics(registry: Metrics): ParkingMetrics {
  const registers = [registry];
  return {
    parkedEvents: new Counter({
      name: "inbox_parked_events_total",
      help: "Events that were parked, by the reason of the one that failed; BEHIND for those that wait behind it.",
      labelNames: ["reason"],
      registers,
    }),
    parkedKeys: new Gauge({
      name: "inbox_parked_keys",
      help: `Keys of the service that are parked, in its database: every instance shows the same. Counted up to ${countMax}.`,
      registers,
    }),
    replays: new Counter({
      name: "inbox_replays_total",
      help: "Replays of a parked key by result: handled (it is free again), failed (it stays parked), outage (tried again).",
      labelNames: ["result"],
      registers,
    }),
    stopped: new Gauge({
      name: "inbox_stopped",
      help: "1 while too many keys have failed in a row: nothing more is parked, batches are tried again until one succeeds.",
      registers,
    }),
  };
}

const countMax = 10_000;
/** Events of a key that are replayed in one transaction. */
const replaySizeMax = 50;
/** Keys whose replay fails by an outage, one after another, until the next look. */
const outagesMax = 5;

/** An event of a parked key, as it was received. */
export interface ParkedRecord {
  readonly eventId: string;
  readonly record: TopicRecord;
}

export interface ReplayOptions {
  readonly service: string;
  readonly database: Database;
  readonly log: Logger;
  readonly metrics: ParkingMetrics;
  /** Handles the events in the open transaction, whole. The result runs after the commit. */
  readonly handle: (transaction: Transaction, events: readonly ParkedRecord[]) => Promise<() => void>;
  readonly onRetry: () => void;
}

/**
 * Replays every key whose replay was requested, in order, and removes its row in the transaction of its last event.
 * Any instance may do so at any time: the key's row is locked meanwhile, and what another one has locked is left to it.
 * @throws what was an outage; those keys are as they were, and still requested.
 */
export async function replayRequested(options: ReplayOptions, signal?: AbortSignal): Promise<void> {
  const { database, metrics, log } = options;
  const table = parkedKeyTableName(options.service);
  const [seen] = await database.query<{ parked: number; requested: number }>(
    `SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM ${table} LIMIT ${countMax}) AS counted) AS parked,
       EXISTS (SELECT 1 FROM ${table} WHERE replay_requested_at IS NOT NULL) AS requested`,
  );
  metrics.parkedKeys.set(Number(seen?.parked ?? 0));
  if (Number(seen?.requested ?? 0) === 0) return;

  const outages = new Map<string, unknown>();
  let going: { readonly key: string; readonly eventsMax: number } | undefined;
  while (!signal?.aborted && outages.size < outagesMax) {
    let key: string | undefined;
    try {
      const step = await database.transaction(
        (transaction) =>
          replayStep(transaction, options, {
            ...(going === undefined ? { except: [...outages.keys()] } : { key: going.key }),
            eventsMax: going?.eventsMax ?? replaySizeMax,
            onKey: (locked) => {
              key = locked;
            },
          }),
        { onRetry: options.onRetry },
      );
      if (step === undefined && going === undefined) break;
      step?.committed?.();
      going = step?.next;
      if (step?.result !== undefined) {
        metrics.replays.inc({ result: step.result });
        const line = { key, result: step.result, error: step.error };
        if (step.result === "handled") log.info(line, "parked key replayed");
        else log.error(line, "replay failed: the key stays parked");
      }
    } catch (error) {
      metrics.replays.inc({ result: "outage" });
      log.error({ key, ...errorFields(error) }, "replay put off");
      if (key === undefined) throw error;
      outages.set(key, error);
      going = undefined;
    }
  }
  for (const error of outages.values()) throw error;
}

interface ReplayStep {
  /** Undefined while there is more to do for the key. */
  readonly result?: "handled" | "failed";
  readonly next?: { readonly key: string; readonly eventsMax: number };
  readonly error?: string;
  readonly committed?: () => void;
}

/** One transaction of a replay. Undefined where there is no key to be had. */
async function replayStep(
  transaction: Transaction,
  options: ReplayOptions,
  wanted: {
    readonly key?: string;
    readonly except?: readonly string[];
    readonly eventsMax: number;
    readonly onKey: (key: string) => void;
  },
): Promise<ReplayStep | undefined> {
  const keys = parkedKeyTableName(options.service);
  const events = parkedEventTableName(options.service);
  const only = wanted.key === undefined ? "" : "AND aggregate_id = ?";
  const except = wanted.except === undefined || wanted.except.length === 0 ? "" : "AND aggregate_id NOT IN (?)";
  const [locked] = await transaction.query<{ aggregate_id: string; now: Date }>(
    `SELECT aggregate_id, CURRENT_TIMESTAMP(3) AS now FROM ${keys}
      WHERE replay_requested_at IS NOT NULL ${only} ${except}
      ORDER BY replay_requested_at LIMIT 1 FOR UPDATE SKIP LOCKED`,
    [...(only === "" ? [] : [wanted.key]), ...(except === "" ? [] : [wanted.except])],
  );
  if (locked === undefined) return undefined;
  const key = locked.aggregate_id;
  wanted.onKey(key);

  const rows = await transaction.query<ParkedEventRow>(
    `SELECT event_id, published_at, topic_partition, topic_offset, record_key, headers, payload FROM ${events}
      WHERE aggregate_id = ? ORDER BY position LIMIT ?`,
    [key, wanted.eventsMax + 1],
  );
  const chosen = rows.slice(0, wanted.eventsMax).map((row) => ({ eventId: row.event_id, record: recordOf(row) }));
  const ids = chosen.map(({ eventId }) => eventId);
  let committed: (() => void) | undefined;
  if (chosen.length > 0) {
    await transaction.execute("SAVEPOINT before_replay");
    try {
      await transaction.execute(
        `UPDATE ${inboxTableName(options.service)} SET outcome = 'HANDLED', handled_at = ? WHERE event_id IN (?)`,
        [locked.now, ids],
      );
      committed = await options.handle(transaction, chosen);
    } catch (error) {
      const reason = faultOf(error);
      if (reason === undefined) throw error;
      await transaction.execute("ROLLBACK TO SAVEPOINT before_replay");
      // Alone each, so that those before the bad one have their effect, and the bad one is named.
      if (chosen.length > 1) return { next: { key, eventsMax: 1 } };
      const described = describeFailure(error);
      await transaction.execute(
        `UPDATE ${keys} SET event_id = ?, reason = ?, error = ?, attempts = attempts + 1, failed_at = ?,
           replay_requested_at = NULL WHERE aggregate_id = ?`,
        [ids[0], reason, described, locked.now, key],
      );
      await transaction.execute(`UPDATE ${events} SET error = ? WHERE event_id = ?`, [described, ids[0]]);
      return { result: "failed", error: described };
    }
    await transaction.execute(`DELETE FROM ${events} WHERE event_id IN (?)`, [ids]);
  }
  if (rows.length > chosen.length)
    return { next: { key, eventsMax: wanted.eventsMax }, ...(committed && { committed }) };
  await transaction.execute(`DELETE FROM ${keys} WHERE aggregate_id = ?`, [key]);
  return { result: "handled", ...(committed && { committed }) };
}

interface ParkedEventRow extends Record<string, unknown> {
  event_id: string;
  published_at: Date;
  topic_partition: number;
  topic_offset: string | number;
  record_key: Buffer | null;
  headers: string;
  payload: Buffer | null;
}

function recordOf(row: ParkedEventRow): TopicRecord {
  return {
    key: row.record_key,
    value: row.payload,
    headers: decodeHeaders(row.headers),
    partition: row.topic_partition,
    offset: String(row.topic_offset),
    publishedAt: row.published_at,
  };
}

/** A parked key, as an operator sees it. */
export interface ParkedKey {
  readonly key: string;
  /** The event that failed last, and its type. */
  readonly eventId: string;
  readonly eventType: string;
  readonly reason: FaultReason;
  readonly error: string;
  readonly attempts: number;
  /** Events that wait, the failed one included. */
  readonly events: number;
  readonly parkedAt: Date;
  readonly failedAt: Date;
  /** Undefined where no replay was requested. */
  readonly replayRequestedAt: Date | undefined;
}

/** An event of a parked key, as an operator sees it, and as it was received. */
export interface ParkedEvent extends ParkedRecord {
  readonly type: string;
  readonly source: string;
  readonly occurredAt: Date | undefined;
  /** What is wrong with it; undefined where it only waits behind another. */
  readonly error: string | undefined;
}

/** The parked keys of a service, those that have waited longest first, `limit` (default 1,000) at most. */
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
    reason: FaultReason;
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
    replayRequestedAt: row.replay_requested_at ?? undefined,
  }));
}

/** A parked key with its events in order, `limit` (default 1,000) at most; undefined where it is not parked. */
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
 * Asks the service to replay one parked key, or all of them. It does so within seconds, while it runs.
 * @returns how many keys are asked for now that were not before; 0 where there is no such key, or it was asked for.
 */
export async function requestReplay(
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
