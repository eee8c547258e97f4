/** Appends events to a service's outbox, inside the transaction of the change that they tell of. */
import type { Message, Registry } from "@bufbuild/protobuf";
import { type EventHeaders, type NewEvent, type ReceivedEnvelope, toOutboxRow } from "../proto/envelope.ts";
import { insertStatements, type Statement, type Transaction } from "../services/kit/database.ts";
import { childTraceparent } from "../services/kit/traceparent.ts";
import { outboxTableName } from "./tables.ts";

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
/** The width of `aggregate_id`. */
const aggregateIdLengthMax = 128;

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
        const row = toOutboxRow(event, options.registry);
        if (row.aggregateId === "" || row.aggregateId.length > aggregateIdLengthMax) {
          throw new OutboxAppendError(
            `${row.type}: the aggregate id must have 1 to ${aggregateIdLengthMax} characters, but has ${row.aggregateId.length}.`,
          );
        }
        const sizeBytes = Buffer.byteLength(row.payload);
        if (sizeBytes > payloadSizeMaxBytes) {
          throw new OutboxAppendError(
            `${row.type} of ${row.aggregateId}: ${sizeBytes} bytes of payload, but at most ${payloadSizeMaxBytes} fit on the topic.`,
          );
        }
        return [row.id, row.aggregateId, row.type, row.payload, row.headers];
      });
      return insertStatements(table, ["id", "aggregate_id", "type", "payload", "headers"], rows);
    },
  };
  return outbox;
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
