/** From records to inbox rows: which records get a row, and which of those are new to this service. */
import type { Message, Registry } from "@bufbuild/protobuf";
import {
  decodePayload,
  fromRecord,
  type ReceivedEnvelope,
  typeOfRecord,
  UndecodableRecordError,
} from "../../proto/envelope.ts";
import type { Row, Transaction } from "../../services/kit/database.ts";
import { isDuplicateKey } from "../../services/kit/database-errors.ts";
import { describeError } from "../../services/kit/errors.ts";
import type { Statement } from "../../services/kit/statements.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { inboxTableName } from "../tables.ts";
import type { ReceivedEvent } from "./handler.ts";
import {
  identityOf,
  identityOfUndecodable,
  publishedAtOf,
  type RecordIdentity,
  requireFittingKey,
} from "./identity.ts";
import { lockParkedKeys } from "./parking.ts";

/** A record that gets an inbox row. */
export interface Entry<M extends Message> {
  readonly record: TopicRecord;
  readonly identity: RecordIdentity;
  /** Undefined if the type is recorded but not handled, and if the record does not decode. */
  readonly event: ReceivedEvent<M> | undefined;
  /** Why a record of a handled type does not decode. */
  readonly decodeError: UndecodableRecordError | undefined;
}

/** Which records a service is interested in. */
export interface Interest<M extends Message> {
  /** Decodes the handled types. */
  readonly registry: Registry;
  /** The event types to handle. Records of other types are not decoded, so a service may publish types that this one does not know. */
  readonly handles: ReadonlySet<string>;
  /** Which events get an inbox row: those of handled types, or every event, so that a key's timeline can be read. */
  readonly records: "handled" | "all";
  /** The key that an event belongs to. An event whose record has another key would be handled out of order, so it is not handled. */
  readonly keyOf: (message: M) => string;
}

/** Whether the entry's type is handled by this service, even if this record of it does not decode. */
export const isHandled = ({ event, decodeError }: Entry<Message>) => event !== undefined || decodeError !== undefined;

/** Returns the records that get an inbox row, without duplicates, and the number of those that get none. */
export function readEntries<M extends Message>(
  records: readonly TopicRecord[],
  interest: Interest<M>,
): { readonly entries: readonly Entry<M>[]; readonly skipped: number } {
  const entries = new Map<string, Entry<M>>();
  let skipped = 0;
  for (const record of records) {
    const entry = entryOf<M>(record, interest);
    if (entry === undefined) skipped++;
    else if (!entries.has(entry.identity.eventId)) entries.set(entry.identity.eventId, entry);
  }
  return { entries: [...entries.values()], skipped };
}

function entryOf<M extends Message>(record: TopicRecord, interest: Interest<M>): Entry<M> | undefined {
  const type = typeOfRecord(record);
  const handled = type !== undefined && interest.handles.has(type);
  if (!handled && (type === undefined || interest.records === "handled")) return undefined;
  try {
    const envelope = fromRecord(record);
    const identity = identityOf(envelope);
    return { record, identity, event: handled ? decode(envelope, interest) : undefined, decodeError: undefined };
  } catch (error) {
    // The type is not handled here, and the record is not a valid event either, so it gets no row.
    if (!handled) return undefined;
    const decodeError = asUndecodable(error);
    return { record, identity: identityOfUndecodable(record, type), event: undefined, decodeError };
  }
}

/**
 * Decodes a record of a handled type that was stored under `eventId`.
 * @throws UndecodableRecordError
 */
export function readParkedEvent<M extends Message>(
  record: TopicRecord,
  eventId: string,
  interest: Interest<M>,
): ReceivedEvent<M> {
  try {
    // A record without a usable id of its own keeps the id under which it was recorded.
    const envelope = { ...fromRecord(record), id: eventId };
    requireFittingKey(envelope);
    return decode(envelope, interest);
  } catch (error) {
    throw asUndecodable(error);
  }
}

function decode<M extends Message>(envelope: ReceivedEnvelope, { registry, keyOf }: Interest<M>): ReceivedEvent<M> {
  const message = decodePayload(envelope, registry) as M;
  const key = keyOf(message);
  if (key !== envelope.aggregateId) {
    throw new UndecodableRecordError(`The event belongs to the key ${key}, which is not the key of its record.`);
  }
  return { envelope, message };
}

/** Whatever is thrown while a record is read is the fault of that record: nothing else was asked. */
function asUndecodable(error: unknown): UndecodableRecordError {
  if (error instanceof UndecodableRecordError) return error;
  return new UndecodableRecordError(`The record cannot be read: ${describeError(error)}`, { cause: error });
}

const inboxColumns =
  "event_id, aggregate_id, type, source, occurred_at, published_at, topic_partition, topic_offset, batch_id, outcome";

/** Inserts one row per entry. If one of them is there already, it fails with a duplicate key and inserts none. */
export function insertInboxRows<M extends Message>(
  service: string,
  batchId: string,
  entries: readonly Entry<M>[],
): Statement {
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
 * Inserts the inbox rows. Returns the entries that were not there before (`fresh`) and the keys among them that are
 * parked. Usually all entries are fresh, which takes one round trip. After a duplicate key, a query finds which ones are.
 */
export async function recordFresh<M extends Message>(
  transaction: Transaction,
  service: string,
  batchId: string,
  entries: readonly Entry<M>[],
): Promise<{ readonly fresh: readonly Entry<M>[]; readonly parkedKeys: Set<string> }> {
  const table = inboxTableName(service);
  const insert = insertInboxRows(service, batchId, entries);
  const lockKeysOf = (some: readonly Entry<M>[]) =>
    lockParkedKeys(
      service,
      some.filter(isHandled).map(({ identity }) => identity.key),
    );
  const keysIn = (rows: readonly Row[] = []) => new Set(rows.map(({ aggregate_id: key }) => key as string));
  try {
    const [, parked] = await transaction.pipeline([insert, ...lockKeysOf(entries)]);
    return { fresh: entries, parkedKeys: keysIn(parked) };
  } catch (error) {
    // A duplicate key undoes only its own statement: the transaction continues.
    if (!isDuplicateKey(error)) throw error;
  }
  // INSERT IGNORE would also hide a value that is cut off or out of range.
  const [, inserted = []] = await transaction.pipeline([
    { ...insert, sql: `${insert.sql} ON DUPLICATE KEY UPDATE event_id = ${table}.event_id` },
    {
      sql: `SELECT event_id FROM ${table} WHERE event_id IN (?) AND batch_id = ?`,
      values: [entries.map(({ identity }) => identity.eventId), batchId],
    },
  ]);
  const ours = new Set(inserted.map((row) => row.event_id as string));
  const fresh = entries.filter(({ identity }) => ours.has(identity.eventId));
  const [parked] = await transaction.pipeline(lockKeysOf(fresh));
  return { fresh, parkedKeys: keysIn(parked) };
}
