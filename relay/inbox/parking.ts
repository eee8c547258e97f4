/**
 * Parking: an event that cannot be handled is put aside, and with it every later event of its key, in order. Events of
 * other keys are not delayed. The parked events wait for an operator to request their redelivery (redelivery.ts).
 */
import type { HeaderValue } from "../../proto/envelope.ts";
import type { Transaction } from "../../services/kit/database.ts";
import type { Statement } from "../../services/kit/statements.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { inboxTableName, parkedEventTableName, parkedKeyTableName } from "../tables.ts";
import type { Fault } from "./faults.ts";
import { publishedAtOf, type RecordIdentity } from "./identity.ts";

/**
 * Reads which of the keys are parked, as `aggregate_id`, and locks their rows until the transaction ends, so that a
 * redelivery and a new event of the same key wait for each other. Returns no statement if there are no keys.
 *
 * Run it after the inbox insert. There, instances that received the same event wait for each other, so this read sees
 * whether the first of them has parked the key.
 */
export function lockParkedKeys(service: string, keys: readonly string[]): readonly Statement[] {
  if (keys.length === 0) return [];
  // FORCE INDEX: on a small table the optimizer may scan, and a scan would wait for locks on other keys.
  const sql = `SELECT aggregate_id FROM ${parkedKeyTableName(service)} FORCE INDEX (PRIMARY)
      WHERE aggregate_id IN (?) ORDER BY aggregate_id FOR UPDATE`;
  return [{ sql, values: [[...new Set(keys)]] }];
}

/** An event that failed in its last attempt, and why. */
export interface FailedEvent {
  readonly key: string;
  readonly eventId: string;
  readonly fault: Fault;
  readonly error: string;
  readonly attempts: number;
}

/** Parks the key of each event, in one statement. No-op for keys that are parked already. */
export async function parkKeys(
  transaction: Transaction,
  service: string,
  failed: readonly FailedEvent[],
): Promise<void> {
  if (failed.length === 0) return;
  const table = parkedKeyTableName(service);
  // In a fixed order, so that two instances cannot deadlock.
  const rows = failed
    .toSorted((one, other) => (one.key < other.key ? -1 : 1))
    .map(({ key, eventId, fault, error, attempts }) => [key, eventId, fault, error, attempts]);
  await transaction.execute(
    `INSERT INTO ${table} (aggregate_id, event_id, reason, error, attempts) VALUES ?
      ON DUPLICATE KEY UPDATE aggregate_id = ${table}.aggregate_id`,
    [rows],
  );
}

/** An event to be stored behind its parked key, which is locked. */
export interface EventToPark {
  readonly record: TopicRecord;
  readonly identity: RecordIdentity;
  /** What is wrong with it; undefined if it only waits behind another. */
  readonly error: string | undefined;
}

/** Well below the smallest `max_allowed_packet` in use, even if binary data is sent as hexadecimal text. */
const insertSizeMaxBytes = 1_000_000;

/** Stores events behind their keys, in the order given, and marks their inbox rows. */
export async function parkEvents(
  transaction: Transaction,
  service: string,
  events: readonly EventToPark[],
): Promise<void> {
  if (events.length === 0) return;
  let rows: SqlRow[] = [];
  let sizeBytes = 0;
  for (const { record, identity, error } of events) {
    const headers = encodeHeaders(record.headers);
    const rowBytes = (record.value?.length ?? 0) + (record.key?.length ?? 0) + headers.length;
    if (rows.length > 0 && sizeBytes + rowBytes > insertSizeMaxBytes) {
      await insertParkedEvents(transaction, service, rows);
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
  await insertParkedEvents(transaction, service, rows);
  await transaction.execute(`UPDATE ${inboxTableName(service)} SET outcome = 'PARKED' WHERE event_id IN (?)`, [
    events.map(({ identity }) => identity.eventId),
  ]);
}

type SqlRow = readonly unknown[];

async function insertParkedEvents(transaction: Transaction, service: string, rows: readonly SqlRow[]): Promise<void> {
  const table = parkedEventTableName(service);
  // An event that is parked already keeps its place. Its inbox row can only have been deleted by hand: pruning keeps the
  // rows of parked events.
  await transaction.execute(
    `INSERT INTO ${table}
        (event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset,
         record_key, headers, payload, error) VALUES ? ON DUPLICATE KEY UPDATE event_id = ${table}.event_id`,
    [rows],
  );
}

const bytesOf = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value));

type StoredHeader = string | null | { readonly base64: string };

/** Headers as JSON: text as text, so that an operator can read it, other bytes as base64, null as null. Nothing is lost. */
export function encodeHeaders(headers: TopicRecord["headers"]): string {
  const encode = (value: HeaderValue): StoredHeader => {
    if (value === null) return null;
    const bytes = Buffer.from(value as Uint8Array);
    const text = bytes.toString("utf8");
    return Buffer.from(text, "utf8").equals(bytes) ? text : { base64: bytes.toString("base64") };
  };
  const pairs = Object.entries(headers ?? {}).flatMap(([name, value]) => {
    if (value === undefined) return [];
    return [[name, Array.isArray(value) ? value.map(encode) : encode(value as HeaderValue)] as const];
  });
  return JSON.stringify(pairs);
}

/** The headers that {@link encodeHeaders} wrote, as the broker would deliver them. */
export function decodeHeaders(stored: string): NonNullable<TopicRecord["headers"]> {
  const decode = (value: StoredHeader) => {
    if (value === null) return null;
    return typeof value === "string" ? Buffer.from(value, "utf8") : Buffer.from(value.base64, "base64");
  };
  const pairs = JSON.parse(stored) as readonly (readonly [string, StoredHeader | readonly StoredHeader[]])[];
  return Object.fromEntries(
    pairs.map(([name, value]) => [
      name,
      Array.isArray(value) ? (value as readonly StoredHeader[]).map(decode) : decode(value as StoredHeader),
    ]),
  );
}

/** An event of a parked key, as it was received. */
export interface ParkedRecord {
  readonly eventId: string;
  readonly record: TopicRecord;
}

/** The columns from which {@link recordOf} restores a record. */
export interface ParkedEventRow extends Record<string, unknown> {
  event_id: string;
  published_at: Date;
  topic_partition: number;
  topic_offset: string | number;
  record_key: Buffer | null;
  headers: string;
  payload: Buffer | null;
}

/** The record of a parked event, as the broker delivered it. */
export function recordOf(row: ParkedEventRow): TopicRecord {
  return {
    key: row.record_key,
    value: row.payload,
    headers: decodeHeaders(row.headers),
    partition: row.topic_partition,
    offset: String(row.topic_offset),
    publishedAt: row.published_at,
  };
}
