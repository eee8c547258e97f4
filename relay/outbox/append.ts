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
   * before, so that `seq` is the causal order of the aggregate's events.
   * @throws OutboxAppendError for an event that could not be delivered later. The business change fails with it.
   */
  append(transaction: Transaction, events: readonly NewEvent[]): Promise<void>;
  /** The statement of `append`, to send with others in one round trip; none if there are no events. @throws OutboxAppendError */
  statements(events: readonly NewEvent[]): readonly Statement[];
}

/** The event is invalid. Another attempt fails as well. */
export class OutboxAppendError extends Error {
  override readonly name = "OutboxAppendError";
}

/** Leaves room for headers below the topic's `max.message.bytes` of 1 MiB. Binary Protobuf is never larger than ProtoJSON. */
const payloadSizeMaxBytes = 900_000;
/** Names and values together: the room that is left for headers. */
const headersSizeMaxBytes = 8_192;
/** The length of the column `aggregate_id`, in characters. */
const aggregateIdLengthMax = 128;
/** What every inbox accepts as an event id. */
const idPattern = /^[!-~]{1,36}$/;
/** A lone surrogate as a JSON escape: JSON can hold it, UTF-8 cannot. Surrogate pairs are not escaped here. */
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
  // Databases ignore trailing spaces in comparisons, so the id would equal that of another aggregate.
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
    refuse(`the payload has ${payloadBytes} bytes, but the topic takes at most ${payloadSizeMaxBytes}.`);
  }
  const headersBytes = Buffer.byteLength(row.headers);
  if (headersBytes > headersSizeMaxBytes) {
    refuse(`the headers have ${headersBytes} bytes, but at most ${headersSizeMaxBytes} are allowed.`);
  }
  return row;
}

/** What an answer needs to know of the event that it answers. Stored with work whose answer comes later. */
export interface Cause {
  readonly eventId: string;
  readonly headers: EventHeaders;
}

/** The received event as the cause of the events that answer it. */
export function causeOf(envelope: ReceivedEnvelope): Cause {
  return { eventId: envelope.id, headers: envelope.headers };
}

/** An event that answers `cause`: in the same trace and conversation, with `cause` as its cause. */
export function answerTo(cause: Cause, aggregateId: string, message: Message, newId: () => string): NewEvent {
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
