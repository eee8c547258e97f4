/**
 * What a service writes to take part in a saga: one function, from events to writes and new events.
 *
 *     (transaction, events) => { writes, publish, ignored }
 *
 * The inbox opens a transaction and calls the function in it, with a batch of events that this service has not handled
 * before. The handler reads what it needs through `transaction` and returns what should happen. It performs no write,
 * sends no message and calls no remote service. The inbox then commits the inbox rows of these events, the writes, and
 * the outbox rows of `publish` together. So an event has its effect exactly once, however often the topic delivers it,
 * and the events that it causes are published if and only if that effect is committed.
 */
import type { Message } from "@bufbuild/protobuf";
import type { NewEvent, ReceivedEnvelope } from "../../proto/envelope.ts";
import type { Transaction } from "../../services/kit/database.ts";
import type { Statement } from "../../services/kit/statements.ts";

/** An event of a type that this service handles, decoded. */
export interface ReceivedEvent<M extends Message = Message> {
  readonly envelope: ReceivedEnvelope;
  readonly message: M;
}

/** What a batch of events leads to. The inbox commits all of it in the handler's transaction, in one round trip. */
export interface BatchResult {
  /** The changes of state. One statement changes many rows: the number of statements must not grow with the batch. */
  readonly writes: readonly Statement[];
  /** New events, appended to the outbox in this order. */
  readonly publish: readonly NewEvent[];
  /** Ids of the events that changed nothing: they came late or out of order, or no longer matter. */
  readonly ignored: readonly string[];
  /** Called after the commit, never after a rollback. Must not throw. */
  readonly onCommitted?: () => void;
}

/**
 * Handles a batch of events. Those of one key are in the order of the topic, and each event is new to this service.
 *
 * A handler must load the state of every event with locking reads in a fixed order, so that two instances cannot deadlock.
 * It then decides event by event on that state in memory, so that a later event sees what an earlier one changed. It must
 * have no side effects: after a deadlock or a lost connection the inbox rolls back and calls it again.
 * A handler whose events lead to too many rows for one transaction may throw, unless it has only one event: the inbox
 * halves the batch.
 * @throws anything. The inbox decides whether the error shows a fault of an event, whose key it then parks, or an outage,
 * after which it retries the batch (faults.ts).
 */
export type BatchHandler<M extends Message> = (
  transaction: Transaction,
  events: readonly ReceivedEvent<M>[],
) => Promise<BatchResult>;
