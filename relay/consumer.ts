/**
 * The inbox consumer: a batch of records from one partition is one local transaction, with a number of statements that
 * does not grow with the batch. An event has its effect once, however often it is delivered.
 */
import type { Message, Registry } from "@bufbuild/protobuf";
import type { NewEvent, ReceivedEnvelope } from "../proto/envelope.ts";
import type { Transaction } from "../services/kit/database.ts";

/** An event that this service handles, decoded. */
export interface ReceivedEvent<M extends Message = Message> {
  readonly envelope: ReceivedEnvelope;
  readonly message: M;
}

/** What handling a batch came to. */
export interface BatchResult {
  /** Appended to the outbox in this order, in the same transaction. */
  readonly publish: readonly NewEvent[];
  /** Ids of the events that changed nothing: late, out of order, or of no concern any more. */
  readonly ignored: readonly string[];
}

/**
 * Loads what the events concern with locked reads in a fixed order, decides each in turn on state that evolves in
 * memory, and writes what changed: each in a fixed number of statements. `events` are in topic order, none was handled
 * before. `now` is the database's clock.
 */
export type BatchHandler<M extends Message> = (
  transaction: Transaction,
  events: readonly ReceivedEvent<M>[],
  now: Date,
) => Promise<BatchResult>;
export type { Registry };
