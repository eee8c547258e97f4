/** Appends events to a service's outbox, in the transaction of the business change that they report. */

import type { Message, Registry } from "@bufbuild/protobuf";
import {
  type EventHeaders,
  type NewEvent,
  type NewOutboxRow,
  type ReceivedEnvelope,
  toOutboxRow,
} from "../../proto/envelope.ts";
import type { Transaction } from "../../services/kit/database.ts";
import { messageOf } from "../../services/kit/errors.ts";
import { insertStatements, type Statement } from "../../services/kit/statements.ts";
import { childTraceparent } from "../../services/kit/traceparent.ts";
import { outboxTableName } from "../tables.ts";

export interface Outbox {
  /**
   * Inserts the events in the given order, in one statement. The caller must have locked (or inserted) each aggregate's row
   * before, so that `seq` follows the causal order of the aggregate's events.
   * @throws OutboxAppendError for an event that could never be delivered. The business change fails with it.
   */
  append(transaction: Transaction, events: readonly NewEvent[]): Promise<void>;
  /** The statement of `append`, to send with others in one round trip; none if there are no events. @throws OutboxAppendError */
  statements(events: readonly NewEvent[]): readonly Statement[];
}

/** The event is invalid; retrying cannot succeed. */
export class OutboxAppendError extends Error {
  override readonly name = "OutboxAppendError";
}

/**
 * Leaves room for headers below the topic's `max.message.bytes` of 1 MiB. The limit is on ProtoJSON. The binary encoding on
 * the topic is smaller, because JSON spells out each field's name; only repeated numbers, which no event has, could be larger.
 */
const payloadSizeMaxBytes = 900_000;
/** Names and values together: the room that is left for headers. */
const headersSizeMaxBytes = 8_192;
/** The length of the column `aggregate_id`, in characters. */
const aggregateIdLengthMax = 128;
/** The ids that an inbox accepts (inbox/identity.ts): an event with another id would be parked by every service. */
const idPattern = /^[!-~]{1,36}$/;
/**
 * A lone surrogate, as `JSON.stringify` writes it: it escapes lone surrogates and leaves pairs as they are. JSON can hold a
 * lone one, UTF-8 cannot.
 */
const loneSurrogate = /(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]/;

/** The outbox of one service. `registry` must hold every event type that the service appends. */
export function createOutbox(options: { readonly service: string; readonly registry: Registry }): Outbox {
  const table = outboxTableName(options.service);
  const outbox: Outbox = {
    async append(transaction, events) {
      await transaction.pipeline(outbox.statements(events));
    },
    statements(events) {
      if (events.length === 0) return [];
      const rows = events.map((event) => {
        const { id, aggregateId, type, payload, headers } = checkedRow(event, options.registry);
        return [id, aggregateId, type, payload, headers];
      });
      return insertStatements(table, ["id", "aggregate_id", "type", "payload", "headers"], rows);
    },
  };
  return outbox;
}

/** The row of a valid event. @throws OutboxAppendError saying what is wrong with the event. */
function checkedRow(event: NewEvent, registry: Registry): NewOutboxRow {
  const { id, aggregateId } = event;
  const refuse = (reason: string, cause?: unknown): never => {
    const named = `${event.message.$typeName} of ${JSON.stringify(aggregateId.slice(0, aggregateIdLengthMax))}`;
    throw new OutboxAppendError(`${named}: ${reason}`, { cause });
  };
  if (!idPattern.test(id)) refuse(`the id must be 1 to 36 printable characters, but is ${JSON.stringify(id)}.`);
  const length = [...aggregateId].length;
  if (length === 0 || length > aggregateIdLengthMax) {
    refuse(`the aggregate id must have 1 to ${aggregateIdLengthMax} characters, but has ${length}.`);
  }
  // The tables' collation, utf8mb4_bin, ignores trailing spaces in comparisons, so the id would equal another aggregate's.
  if (aggregateId.endsWith(" ")) refuse("the aggregate id must not end with a space.");
  if (!aggregateId.isWellFormed()) refuse("the aggregate id contains a lone surrogate.");
  for (const [name, value] of Object.entries(event.headers)) {
    if (typeof value !== "string") refuse(`the header ${name} must be a string, but is ${typeof value}.`);
  }
  let row: NewOutboxRow;
  try {
    row = toOutboxRow(event, registry);
  } catch (error) {
    return refuse(messageOf(error), error);
  }
  if (loneSurrogate.test(row.payload)) refuse("a string in the payload contains a lone surrogate.");
  if (loneSurrogate.test(row.headers)) refuse("a header contains a lone surrogate.");
  const payloadBytes = Buffer.byteLength(row.payload);
  if (payloadBytes > payloadSizeMaxBytes) {
    refuse(`the payload has ${payloadBytes} bytes, but at most ${payloadSizeMaxBytes} are allowed.`);
  }
  const headersBytes = Buffer.byteLength(row.headers);
  if (headersBytes > headersSizeMaxBytes) {
    refuse(`the headers have ${headersBytes} bytes, but at most ${headersSizeMaxBytes} are allowed.`);
  }
  return row;
}

/**
 * What a new event takes over from the event that caused it. Payment stores it with a gateway call, because the call's
 * outcome is published later.
 */
export interface Cause {
  readonly eventId: string;
  readonly headers: EventHeaders;
}

/** The part of a received event that {@link eventCausedBy} needs. */
export function causeOf(envelope: ReceivedEnvelope): Cause {
  return { eventId: envelope.id, headers: envelope.headers };
}

/** A new event with `cause` as its cause: in a child span of the same trace, with the same correlation id. */
export function eventCausedBy(cause: Cause, aggregateId: string, message: Message, newId: () => string): NewEvent {
  const { correlationId, traceparent } = cause.headers;
  return {
    id: newId(),
    aggregateId,
    message,
    headers: {
      traceparent: childTraceparent(traceparent),
      ...(correlationId === undefined ? {} : { correlationId }),
      causationId: cause.eventId,
    },
  };
}
