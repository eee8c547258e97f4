/** Appends events to a service's outbox, inside the transaction of the change that they tell of. */

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
   * Inserts the events, in the order given, in one statement. The caller has locked (or inserted) each aggregate's row
   * before, so that `seq` is the causal order of one aggregate's events.
   * @throws OutboxAppendError for an event that could not be delivered later: the business change fails with it.
   */
  append(transaction: Transaction, events: readonly NewEvent[]): Promise<void>;
  /** The statement of `append`, to go with others in one round trip; none for no events. @throws OutboxAppendError */
  statements(events: readonly NewEvent[]): readonly Statement[];
}

/** The event is at fault, and would be at every try. */
export class OutboxAppendError extends Error {
  override readonly name = "OutboxAppendError";
}

/** Below the topic's `max.message.bytes` of 1 MiB, with room for headers. ProtoJSON is never smaller than binary. */
const payloadSizeMaxBytes = 900_000;
/** What is left of that room: names and values together. */
const headersSizeMaxBytes = 8_192;
/** The width of `aggregate_id`, in characters. */
const aggregateIdLengthMax = 128;
/** An id fits every inbox. */
const idPattern = /^[!-~]{1,36}$/;
/** Half of a character, which JSON can write and UTF-8 cannot. Whole ones are not written as escapes here. */
const halfCharacter = /(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]/;

/** The outbox of one service. `registry` knows every event type that may be appended. */
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

/** @throws OutboxAppendError that says what is wrong with the event. */
function checkedRow(event: NewEvent, registry: Registry): NewOutboxRow {
  const { id, aggregateId } = event;
  const refuse = (reason: string, cause?: unknown): never => {
    const named = `${event.message.$typeName} of ${JSON.stringify(aggregateId.slice(0, aggregateIdLengthMax))}`;
    throw new OutboxAppendError(`${named}: ${reason}`, { cause });
  };
  if (!idPattern.test(id)) refuse(`the id must have 1 to 36 printable characters, but is ${JSON.stringify(id)}.`);
  const length = [...aggregateId].length;
  if (length === 0 || length > aggregateIdLengthMax) {
    refuse(`the aggregate id must have 1 to ${aggregateIdLengthMax} characters, but has ${length}.`);
  }
  // Databases compare texts with trailing blanks cut off: it would be the key of another aggregate, too.
  if (aggregateId.endsWith(" ")) refuse("the aggregate id must not end in a blank.");
  if (!aggregateId.isWellFormed()) refuse("the aggregate id holds half of a character.");
  for (const [name, value] of Object.entries(event.headers)) {
    if (typeof value !== "string") refuse(`the header ${name} must be a text, but is ${typeof value}.`);
  }
  let row: NewOutboxRow;
  try {
    row = toOutboxRow(event, registry);
  } catch (error) {
    return refuse(messageOf(error), error);
  }
  if (halfCharacter.test(row.payload)) refuse("a text in the payload holds half of a character.");
  if (halfCharacter.test(row.headers)) refuse("a header holds half of a character.");
  const payloadBytes = Buffer.byteLength(row.payload);
  if (payloadBytes > payloadSizeMaxBytes) {
    refuse(`${payloadBytes} bytes of payload, but at most ${payloadSizeMaxBytes} fit on the topic.`);
  }
  const headersBytes = Buffer.byteLength(row.headers);
  if (headersBytes > headersSizeMaxBytes) {
    refuse(`${headersBytes} bytes of headers, but at most ${headersSizeMaxBytes} are taken.`);
  }
  return row;
}

/** The event that another one answers, as far as the answer needs it. Kept with work that is answered later. */
export interface Cause {
  readonly eventId: string;
  readonly headers: EventHeaders;
}

/** The received event as the cause of what follows from it. */
export function causeOf(envelope: ReceivedEnvelope): Cause {
  return { eventId: envelope.id, headers: envelope.headers };
}

/** An event in answer to `cause`: the same trace and conversation, one step on. */
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
