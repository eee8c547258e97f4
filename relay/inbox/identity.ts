/**
 * What identifies a received event: its id, by which the inbox drops duplicates, and its key, whose order it keeps. A
 * record that is not an event gets an identity too, so that it can be parked, and only once.
 */
import { createHash } from "node:crypto";
import { headerOf, keyOfRecord, type ReceivedEnvelope, UndecodableRecordError } from "../../proto/envelope.ts";
import type { TopicRecord } from "../kafka/consumer.ts";

/** The identity of a record in the shape in which it is stored: every part fits its column. */
export interface RecordIdentity {
  readonly eventId: string;
  readonly key: string;
  readonly type: string;
  /** The CloudEvents source (`ce_source`). */
  readonly source: string;
  /** Undefined for a record that does not decode. */
  readonly occurredAt: Date | undefined;
}

const eventIdLengthMax = 36;
const keyLengthMax = 128;
const sourceLengthMax = 128;
/** The range of TIMESTAMP. */
const timeMin = new Date(1_000);
const timeMax = new Date("2038-01-19T03:14:07.999Z");

// The tables' collation, utf8mb4_bin, ignores trailing spaces when it compares strings, JavaScript does not: an id or key
// with one is refused.
const fitsEventId = (id: string) => id.length <= eventIdLengthMax && /^[\x21-\x7e]+$/.test(id);
const fitsKey = (key: string) => key !== "" && lengthOf(key) <= keyLengthMax && !key.endsWith(" ");
const fitsTime = (time: Date) => time >= timeMin && time <= timeMax;

/** For comparison with 128: the number of characters, as the database counts them. Only longer strings need counting. */
function lengthOf(value: string): number {
  return value.length <= keyLengthMax ? value.length : [...value].length;
}

const misfit = (part: string) => new UndecodableRecordError(`${part} is empty, too long, malformed or out of range.`);

/**
 * Checks the key under which an event has its effect: to the database, one with trailing blanks would be another order's.
 * @throws UndecodableRecordError
 */
export function requireFittingKey({ aggregateId }: ReceivedEnvelope): void {
  if (!fitsKey(aggregateId)) throw misfit("The key");
}

/**
 * The identity of a decoded event.
 * @throws UndecodableRecordError that names the part that does not fit the inbox.
 */
export function identityOf(envelope: ReceivedEnvelope): RecordIdentity {
  const { id, aggregateId, type, ceSource, occurredAt } = envelope;
  if (!fitsEventId(id)) throw misfit("ce_id");
  requireFittingKey(envelope);
  if (lengthOf(type) > keyLengthMax) throw misfit("ce_type");
  if (lengthOf(ceSource) > sourceLengthMax) throw misfit("ce_source");
  if (!fitsTime(occurredAt)) throw misfit("ce_time");
  return { eventId: id, key: aggregateId, type, source: ceSource, occurredAt };
}

/**
 * The identity of a record that is not an event. It uses the record's own id and key where they are valid, so that duplicates
 * are dropped and the order of its key is kept. Otherwise the id is a digest of the record, the same at every delivery and
 * different for every other record. The key is then a digest of the invalid key, so that its records stay in order, or of
 * the record if it has no key.
 */
export function identityOfUndecodable(record: TopicRecord, type: string): RecordIdentity {
  const recordDigest = digestOf([
    String(record.partition),
    record.offset,
    record.publishedAt.toISOString(),
    record.key ?? "",
    record.value ?? "",
  ]);
  const id = headerOf(record, "ce_id");
  const key = keyOfRecord(record) ?? headerOf(record, "ce_subject");
  return {
    eventId: id !== undefined && fitsEventId(id) ? id : recordDigest,
    key: key === undefined || key === "" ? recordDigest : fitsKey(key) ? key : digestOf([key]),
    type,
    source: (headerOf(record, "ce_source") ?? "").slice(0, sourceLengthMax),
    occurredAt: undefined,
  };
}

/** A SHA-256 digest, cut to the length of an event id. The prefix shows operators that it is not the record's own id or key. */
function digestOf(parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return `raw-${hash.digest("hex")}`.slice(0, eventIdLengthMax);
}

/** When the record was produced, limited to what a TIMESTAMP can hold: a producer may claim any time. */
export function publishedAtOf(record: TopicRecord): Date {
  const { publishedAt } = record;
  return publishedAt < timeMin ? timeMin : publishedAt > timeMax ? timeMax : publishedAt;
}
