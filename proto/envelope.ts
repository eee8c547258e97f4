/**
 * The envelope of an event on its way: message → outbox row → Kafka record → message.
 *
 * In the outbox the payload is canonical ProtoJSON, so that an operator can read it. On the topic it is binary Protobuf
 * under CloudEvents 1.0 headers in binary mode (https://github.com/cloudevents/spec, kafka-protocol-binding §3.2).
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

/** What travels beside an event: where it belongs in a trace and in a conversation. */
export interface EventHeaders {
  /** W3C trace context of the step that published it. */
  readonly traceparent?: string;
  /** The same for every event of one conversation: the client's request id. */
  readonly correlationId?: string;
  /** The id of the event that this one answers. */
  readonly causationId?: string;
}

/** An event that a service wants to publish. */
export interface NewEvent {
  /** UUIDv7; also the event's id on the topic. */
  readonly id: string;
  /** The record key: the order's id. */
  readonly aggregateId: string;
  readonly message: Message;
  readonly headers: EventHeaders;
}

/** The columns of an outbox row that the publishing service fills. */
export interface NewOutboxRow {
  readonly id: string;
  readonly aggregateId: string;
  /** Protobuf full name. */
  readonly type: string;
  /** Canonical ProtoJSON. */
  readonly payload: string;
  /** JSON of {@link EventHeaders}. */
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
  /** Decimal; grows in the causal order of one aggregate's events. */
  readonly seq: string;
}

/** How a payload is put on the topic: binary Protobuf, or the outbox's JSON as it stands. */
export type Encoding = "protobuf" | "json";

/** A record as it is produced. */
export interface EventRecord {
  readonly key: string;
  readonly value: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

/** A record as it is consumed. A header that occurs several times is a list. */
export interface ConsumedRecord {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers?: Readonly<Record<string, HeaderValue | readonly HeaderValue[] | undefined>> | undefined;
}
type HeaderValue = Uint8Array | string;

/** The envelope of a consumed record, with the payload still encoded. */
export interface ReceivedEnvelope {
  readonly id: string;
  readonly type: string;
  /** CloudEvents source, for example `/shop/order`. */
  readonly source: string;
  readonly aggregateId: string;
  readonly occurredAt: Date;
  /** The publisher's outbox `seq`, decimal. */
  readonly sequence: string;
  readonly headers: EventHeaders;
  readonly payload: Uint8Array;
}

/** The payload can never be encoded: not JSON, or of another shape than its type. */
export class UnencodablePayloadError extends Error {
  override readonly name = "UnencodablePayloadError";
}

/** The type, or a field in the payload, is newer than the schema at hand. Nothing is wrong with the row. */
export class SchemaBehindError extends Error {
  override readonly name = "SchemaBehindError";
}

/** A record that is no event of ours, or whose payload does not decode. */
export class UndecodableRecordError extends Error {
  override readonly name = "UndecodableRecordError";
}

/**
 * The outbox row of an event.
 * @throws Error when `registry` does not know the message's type: the relay could not encode it later.
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
 * The record of an outbox row.
 * @param options.source CloudEvents source of the row's publisher, for example `/shop/order`.
 * @throws SchemaBehindError | UnencodablePayloadError
 */
export function toRecord(
  row: OutboxRow,
  options: { readonly source: string; readonly encoding: Encoding; readonly registry: Registry },
): EventRecord {
  const json = options.encoding === "json";
  const value = json ? new TextEncoder().encode(row.payload) : encodePayload(row, options.registry);
  const headers: Record<string, string> = {
    ce_specversion: "1.0",
    ce_id: row.id,
    ce_type: row.type,
    ce_source: options.source,
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
    // Of two fields with one name the last one counts, as in a JSON column of MySQL's. No row that was appended by code
    // has them, and looking for them would take as long as all the rest of the encoding.
    json = JSON.parse(row.payload);
  } catch (error) {
    throw new UnencodablePayloadError(`payload is not JSON: ${messageOf(error)}`);
  }
  try {
    return toBinary(schema, fromJson(schema, json, { registry }));
  } catch (error) {
    // Read leniently it is fine: then only a field or an enum value is unknown, and a newer schema will know it.
    if (parses(schema, json, registry)) throw new SchemaBehindError(messageOf(error));
    throw new UnencodablePayloadError(messageOf(error));
  }
}

function parses(schema: DescMessage, json: JsonValue, registry: Registry): boolean {
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
    throw new UnencodablePayloadError("headers is not JSON");
  }
  if (typeof parsed !== "object" || parsed === null) throw new UnencodablePayloadError("headers is not a JSON object");
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

/** The `ce_type` of a record, or undefined where there is none: enough to skip what is not handled, undecoded. */
export function typeOfRecord(record: ConsumedRecord): string | undefined {
  return header(record, "ce_type");
}

/**
 * The envelope of a record.
 * @throws UndecodableRecordError that names the missing or malformed part.
 */
export function fromRecord(record: ConsumedRecord): ReceivedEnvelope {
  const required = (name: string): string => {
    const value = header(record, name);
    if (value === undefined || value === "") throw new UndecodableRecordError(`The record has no header ${name}.`);
    return value;
  };
  const occurredAt = new Date(required("ce_time"));
  if (Number.isNaN(occurredAt.getTime())) throw new UndecodableRecordError("The header ce_time is no time.");
  if (record.value === null) throw new UndecodableRecordError("The record has no value.");
  const sequence = required("ce_sequence");
  if (!/^\d+$/.test(sequence)) throw new UndecodableRecordError("The header ce_sequence is no number.");
  return {
    id: required("ce_id"),
    type: required("ce_type"),
    source: required("ce_source"),
    aggregateId: record.key === null ? required("ce_subject") : text(record.key),
    occurredAt,
    sequence,
    headers: eventHeaders(
      header(record, "traceparent"),
      header(record, "ce_correlationid"),
      header(record, "ce_causationid"),
    ),
    payload: record.value,
  };
}

/**
 * The message in an envelope.
 * @throws UndecodableRecordError when the type is unknown or the payload is not of it.
 */
export function decodePayload(envelope: ReceivedEnvelope, registry: Registry): Message {
  const schema = registry.getMessage(envelope.type);
  if (schema === undefined) throw new UndecodableRecordError(`The schema has no type ${envelope.type}.`);
  try {
    return fromBinary(schema, envelope.payload);
  } catch (error) {
    throw new UndecodableRecordError(`The payload is no ${envelope.type}: ${messageOf(error)}`);
  }
}

function header(record: ConsumedRecord, name: string): string | undefined {
  const value = record.headers?.[name];
  const first = Array.isArray(value) ? (value as readonly HeaderValue[])[0] : (value as HeaderValue | undefined);
  if (first === undefined) return undefined;
  return typeof first === "string" ? first : text(first);
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
