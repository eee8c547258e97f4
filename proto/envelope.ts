/**
 * Converts an event on its way: message → outbox row → Kafka record → message.
 *
 * In the outbox the payload is canonical ProtoJSON, so operators can read it. On the topic it is binary Protobuf with
 * CloudEvents 1.0 headers in binary mode (https://github.com/cloudevents/spec, kafka-protocol-binding §3.2).
 */
import {
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonValue,
  type Message,
  type Registry,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";

/** Metadata that links an event to its trace and to the request that caused it. */
export interface EventHeaders {
  /** W3C trace context of the step that published the event. */
  readonly traceparent?: string;
  /** The client's request id; the same in every event that the request leads to. */
  readonly correlationId?: string;
  /** The id of the event that this event answers. */
  readonly causationId?: string;
}

/** An event to be published. */
export interface NewEvent {
  /** UUIDv7. It stays the event's id on the topic. */
  readonly id: string;
  /** The order's id; it becomes the record's key. */
  readonly aggregateId: string;
  readonly message: Message;
  readonly headers: EventHeaders;
}

/** The outbox columns that the publishing service writes. */
export interface NewOutboxRow {
  readonly id: string;
  readonly aggregateId: string;
  /** Protobuf full name. */
  readonly type: string;
  /** Canonical ProtoJSON. */
  readonly payload: string;
  /** {@link EventHeaders} as JSON. */
  readonly headers: string;
}

/** An outbox row as the relay reads it. */
export interface OutboxRow {
  readonly id: string;
  readonly aggregateId: string;
  readonly type: string;
  readonly payload: string;
  readonly headers: string | null;
  readonly occurredAt: Date;
  /** A decimal number. For one aggregate, it increases in the causal order of the events. */
  readonly seq: string;
}

/** The format of payloads on the topic: binary Protobuf, or the outbox's JSON unchanged. */
export type Encoding = "protobuf" | "json";

/** A record to be produced. */
export interface EventRecord {
  readonly key: string;
  readonly value: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

/** A record as the Kafka client delivers it. A repeated header arrives as a list. Kafka allows null everywhere. */
export interface ConsumedRecord {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers?: Readonly<Record<string, HeaderValue | readonly HeaderValue[] | undefined>> | undefined;
}
export type HeaderValue = Uint8Array | string | null;

/** A consumed record with its headers parsed and its payload still encoded. */
export interface ReceivedEnvelope {
  readonly id: string;
  readonly type: string;
  /** CloudEvents `source`, for example `/shop/order`. */
  readonly ceSource: string;
  readonly aggregateId: string;
  readonly occurredAt: Date;
  /** `seq` of the publisher's outbox row, a decimal number. */
  readonly sequence: string;
  readonly headers: EventHeaders;
  readonly payload: Uint8Array;
}

/** The row cannot be encoded with any schema: its payload is not JSON, or does not have the shape of its type. */
export class UnencodablePayloadError extends Error {
  override readonly name = "UnencodablePayloadError";
}

/** The row's type, a field or an enum value is newer than the schema in use. The row itself is valid. */
export class SchemaBehindError extends Error {
  override readonly name = "SchemaBehindError";
}

/** The record lacks a valid CloudEvents header, or its payload cannot be decoded. */
export class UndecodableRecordError extends Error {
  override readonly name = "UndecodableRecordError";
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Encodes an event as an outbox row.
 * @throws Error if `registry` does not know the message's type, since the relay could not encode it later.
 */
export function toOutboxRow(event: NewEvent, registry: Registry): NewOutboxRow {
  const type = event.message.$typeName;
  const schema = registry.getMessage(type);
  if (schema === undefined) throw new Error(`${type} is not in the event table (proto/event-table.ts).`);
  return {
    id: event.id,
    aggregateId: event.aggregateId,
    type,
    payload: toJsonString(schema, event.message, { registry }),
    headers: JSON.stringify(event.headers),
  };
}

/**
 * Encodes an outbox row as a Kafka record.
 * @param options.ceSource CloudEvents `source` of the row's publisher, for example `/shop/order`.
 * @throws SchemaBehindError | UnencodablePayloadError
 */
export function toRecord(
  row: OutboxRow,
  options: { readonly ceSource: string; readonly encoding: Encoding; readonly registry: Registry },
): EventRecord {
  const json = options.encoding === "json";
  const value = json ? new TextEncoder().encode(row.payload) : encodePayload(row, options.registry);
  const headers: Record<string, string> = {
    ce_specversion: "1.0",
    ce_id: row.id,
    ce_type: row.type,
    ce_source: options.ceSource,
    ce_time: row.occurredAt.toISOString(),
    ce_subject: row.aggregateId,
    ce_sequence: row.seq,
    "content-type": json ? "application/json" : "application/protobuf",
  };
  const { traceparent, correlationId, causationId } = parseHeaders(row.headers);
  if (traceparent !== undefined) headers.traceparent = traceparent;
  if (correlationId !== undefined) headers.ce_correlationid = correlationId;
  if (causationId !== undefined) headers.ce_causationid = causationId;
  return { key: row.aggregateId, value, headers };
}

function encodePayload(row: OutboxRow, registry: Registry): Uint8Array {
  const schema = registry.getMessage(row.type);
  if (schema === undefined) throw new SchemaBehindError(`The relay's schema has no type ${row.type}.`);
  let json: JsonValue;
  try {
    // If a field is repeated, the last value wins, as in a JSON column of MySQL. Our own append never repeats one, and a
    // check would double the time that encoding takes.
    json = JSON.parse(row.payload);
  } catch (error) {
    throw new UnencodablePayloadError(`The payload is not JSON: ${messageOf(error)}`);
  }
  try {
    return toBinary(schema, fromJson(schema, json, { registry }));
  } catch (error) {
    // If it parses without its unknown fields and enum values, only the schema is too old.
    if (parsesLeniently(schema, json, registry)) throw new SchemaBehindError(messageOf(error));
    throw new UnencodablePayloadError(messageOf(error));
  }
}

function parsesLeniently(schema: DescMessage, json: JsonValue, registry: Registry): boolean {
  try {
    fromJson(schema, json, { registry, ignoreUnknownFields: true });
    return true;
  } catch {
    return false;
  }
}

function parseHeaders(headers: string | null): EventHeaders {
  if (headers === null) return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(headers);
  } catch {
    throw new UnencodablePayloadError("The headers are not JSON");
  }
  if (typeof parsed !== "object" || parsed === null)
    throw new UnencodablePayloadError("The headers are not a JSON object");
  const { traceparent, correlationId, causationId } = parsed as Record<string, unknown>;
  return eventHeaders(traceparent, correlationId, causationId);
}

function eventHeaders(traceparent: unknown, correlationId: unknown, causationId: unknown): EventHeaders {
  const headers: { -readonly [Name in keyof EventHeaders]: EventHeaders[Name] } = {};
  if (typeof traceparent === "string") headers.traceparent = traceparent;
  if (typeof correlationId === "string") headers.correlationId = correlationId;
  if (typeof causationId === "string") headers.causationId = causationId;
  return headers;
}

/** The record's `ce_type`, or undefined if it has none. Lets a consumer skip a record without decoding it. Never throws. */
export function typeOfRecord(record: ConsumedRecord): string | undefined {
  return headerOf(record, "ce_type");
}

/**
 * Parses a record's headers.
 * @throws UndecodableRecordError that names the missing or malformed header.
 */
export function fromRecord(record: ConsumedRecord): ReceivedEnvelope {
  const required = (name: string): string => {
    const value = headerOf(record, name);
    if (value === undefined || value === "") throw new UndecodableRecordError(`The record has no header ${name}.`);
    return value;
  };
  const occurredAt = new Date(required("ce_time"));
  if (Number.isNaN(occurredAt.getTime())) throw new UndecodableRecordError("The header ce_time is not a time.");
  if (record.value === null) throw new UndecodableRecordError("The record has no value.");
  const sequence = required("ce_sequence");
  if (!/^\d+$/.test(sequence)) throw new UndecodableRecordError("The header ce_sequence is not a number.");
  return {
    id: required("ce_id"),
    type: required("ce_type"),
    ceSource: required("ce_source"),
    aggregateId: keyOfRecord(record) ?? required("ce_subject"),
    occurredAt,
    sequence,
    headers: eventHeaders(
      headerOf(record, "traceparent"),
      headerOf(record, "ce_correlationid"),
      headerOf(record, "ce_causationid"),
    ),
    payload: record.value,
  };
}

/**
 * Decodes an envelope's payload.
 * @throws UndecodableRecordError if the type is unknown or the payload is not a message of that type.
 */
export function decodePayload(envelope: ReceivedEnvelope, registry: Registry): Message {
  const schema = registry.getMessage(envelope.type);
  if (schema === undefined) throw new UndecodableRecordError(`The schema has no type ${envelope.type}.`);
  try {
    return fromBinary(schema, envelope.payload);
  } catch (error) {
    throw new UndecodableRecordError(`The payload is not a valid ${envelope.type}: ${messageOf(error)}`);
  }
}

/** The text of a header, of its first occurrence with a value. Undefined without one: null counts as absent. Never throws. */
export function headerOf(record: ConsumedRecord, name: string): string | undefined {
  const value = record.headers?.[name];
  // Hot: most values are bytes.
  if (value instanceof Uint8Array) return textOf(value);
  const first = Array.isArray(value) ? (value as readonly HeaderValue[]).find((it) => it != null) : value;
  if (first instanceof Uint8Array) return textOf(first);
  return typeof first === "string" ? first : undefined;
}

/** The record's key as text, or undefined if it has none. Bytes that are not UTF-8 are replaced. */
export function keyOfRecord(record: ConsumedRecord): string | undefined {
  return record.key === null ? undefined : textOf(record.key);
}

function textOf(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
