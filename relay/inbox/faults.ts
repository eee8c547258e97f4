/**
 * Classifies what goes wrong while events are handled. Either an event has a fault, and its key is parked, or the consumer
 * has an outage, and the batch is retried. The list of faults is closed; everything else is an outage.
 */
import { UndecodableRecordError } from "../../proto/envelope.ts";
import type { Transaction } from "../../services/kit/database.ts";
import { errorNumber, isDataError, RowsChangedError } from "../../services/kit/database-errors.ts";
import { causesOf, describeError, UnavailableError } from "../../services/kit/errors.ts";
import { OutboxAppendError } from "../outbox/append.ts";

/**
 * What is wrong with an event:
 * - `UNDECODABLE`: the record has a handled type but is no event, or its payload does not match its type.
 * - `DATA`: the database rejects a value that comes from the event.
 * - `HANDLER`: the service's own code threw.
 * - `APPEND`: an event that the handler publishes could never be delivered.
 */
export type Fault = "UNDECODABLE" | "DATA" | "HANDLER" | "APPEND";

/** The service's own code threw, and no statement of the transaction had failed before. `cause` is what it threw. */
export class HandlerError extends Error {
  override readonly name = "HandlerError";
}

/** The event's fault that `error` shows, or undefined if `error` is an outage of this consumer. */
export function faultOf(error: unknown): Fault | undefined {
  const thrown = originOf(error);
  if (thrown instanceof UndecodableRecordError) return "UNDECODABLE";
  if (thrown instanceof OutboxAppendError) return "APPEND";
  if (isDataError(thrown)) return "DATA";
  // The handler locks what it reads, so rows that differ at the write are a bug of the handler, not a race.
  if (thrown instanceof RowsChangedError) return "HANDLER";
  return error instanceof HandlerError && !isFromOutside(thrown) ? "HANDLER" : undefined;
}

/** What the service's code threw, or the error itself. */
function originOf(error: unknown): unknown {
  return error instanceof HandlerError ? error.cause : error;
}

/** Whether a server, a driver or the operating system made the error, even if the service's code has wrapped it. */
function isFromOutside(error: unknown): boolean {
  if (errorNumber(error) !== undefined) return true;
  for (const it of causesOf(error)) {
    const { code } = it as Error & { code?: unknown };
    // The runtime reports bad arguments with codes that start with ERR_: those are bugs of the calling code.
    if (it instanceof UnavailableError || (typeof code === "string" && !code.startsWith("ERR_"))) return true;
  }
  return false;
}

/**
 * Runs the service's own code on `transaction`. An error that the code throws by itself is wrapped in
 * {@link HandlerError}. After a failed statement every error is passed on as it is, because some errors of drivers cannot
 * be told from errors of the code.
 */
export async function runHandler<T>(
  transaction: Transaction,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  let statementFailed = false;
  const watched = async <R>(statement: Promise<R>): Promise<R> => {
    try {
      return await statement;
    } catch (error) {
      statementFailed = true;
      throw error;
    }
  };
  try {
    return await work({
      transaction: true,
      query: (sql, values) => watched(transaction.query(sql, values)),
      execute: (sql, values) => watched(transaction.execute(sql, values)),
      pipeline: (statements) => watched(transaction.pipeline(statements)),
    });
  } catch (error) {
    if (statementFailed) throw error;
    throw new HandlerError(describeError(error), { cause: error });
  }
}

/** A failure in words, for operators. Without the statement, whose values may be payment details. */
export function describeFailure(error: unknown): string {
  return describeError(originOf(error));
}

/**
 * A failure as fields of a log line. Not as `err`, whose serializer would also log the statement that drivers attach to their
 * errors.
 */
export function errorFields(error: unknown): { readonly error: string; readonly stack: string | undefined } {
  const origin = originOf(error);
  return { error: describeFailure(error), stack: origin instanceof Error ? origin.stack : undefined };
}
