/** What a failed statement means: a conflict to retry, bad data, a duplicate key, an outage, or a COMMIT of unknown outcome. */
import { causesOf, DomainError, UnavailableError } from "./errors.ts";

/** Rows changed between reading and writing them: a row is missing, or it no longer meets its statement's guard. */
export class RowsChangedError extends Error {
  override readonly name = "RowsChangedError";
}

/** COMMIT was sent and its answer was lost, so the transaction may have committed. Check before repeating it. */
export class CommitOutcomeUnknownError extends UnavailableError {
  override readonly name: string = "CommitOutcomeUnknownError";
}

/** The server did not answer a statement in time. It may still have taken effect, or may still do so. */
export class StatementTimeoutError extends Error {
  override readonly name = "StatementTimeoutError";
  readonly code = "STATEMENT_TIMEOUT";
  /** As in the driver's errors: the connection is not usable any more. */
  readonly fatal = true;
  constructor(timeoutMs: number) {
    super(`The database did not answer within ${timeoutMs} ms.`);
  }
}

/** A session cannot be used safely, because the server did not take its settings. Another attempt fails as well. */
export class SessionRefusedError extends Error {
  override readonly name = "SessionRefusedError";
  readonly code = "SESSION_REFUSED";
}

/** The server's error number, or undefined if the error is not a server's answer to a statement. */
export function errorNumber(error: unknown): number | undefined {
  for (const it of causesOf(error)) {
    const { errno, sqlState } = it as Error & { errno?: unknown; sqlState?: unknown };
    if (typeof errno === "number" && typeof sqlState === "string" && sqlState !== "") return errno;
  }
  return undefined;
}

/** True if the server answered with an error and the connection is still usable. */
export function isServerError(error: unknown): boolean {
  return errorNumber(error) !== undefined && (error as { fatal?: boolean }).fatal !== true;
}

/** True for the driver's own errors: connection refused, reset or timed out, pool exhausted or closed. */
export function isDriverError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof DomainError) return false;
  return (
    typeof (error as { code?: unknown }).code === "string" ||
    /^(Queue limit reached|Pool is closed|Can't add new command when connection is in closed state)/.test(error.message)
  );
}

/** Server shutting down, statement interrupted, connection killed. */
const interruptedNumbers: ReadonlySet<number | undefined> = new Set([1053, 1317, 1927, 3169]);

/** True if the server interrupted the statement. The statement may still have taken effect. */
export function isInterrupted(error: unknown): boolean {
  return interruptedNumbers.has(errorNumber(error));
}

/**
 * Classifies an error that answered a packet with COMMIT in it. A plain server error means that a statement before the
 * COMMIT failed, so nothing is committed: returns it unchanged. Anything else leaves the outcome unknown: returns a
 * CommitOutcomeUnknownError.
 */
export function commitErrorOf(error: unknown): unknown {
  if (isServerError(error) && !isInterrupted(error)) return error;
  return new CommitOutcomeUnknownError("The answer to COMMIT was lost.", { cause: error });
}

/**
 * Server errors that do not blame the statement: disk full (1021, 1114), too many connections, shutting down, network,
 * killed, read-only, and conflicts that were still there after the last attempt.
 */
const outageNumbers: ReadonlySet<number> = new Set([
  1020, 1026, 1030, 1021, 1040, 1042, 1043, 1053, 1077, 1079, 1114, 1158, 1159, 1160, 1161, 1184, 1205, 1213, 1290,
  1792, 1836, 1927,
]);

/** True if the database is away or not ready: no statement could have succeeded, and a later attempt may. */
export function isOutage(error: unknown): boolean {
  if (error instanceof UnavailableError) return true;
  const number = errorNumber(error);
  return number === undefined ? isDriverError(error) : outageNumbers.has(number);
}

/** True for a deadlock, a lock wait that timed out, and MariaDB's "record has changed since last read": repeat the transaction. */
export function isTransient(error: unknown): boolean {
  return [1213, 1205, 1020].includes(errorNumber(error) ?? 0);
}

/** True if a lock was not to be had in time. Its holder may keep it for much longer. */
export function isLockWait(error: unknown): boolean {
  return errorNumber(error) === 1205;
}

/** True if a row with this key exists already. */
export function isDuplicateKey(error: unknown): boolean {
  return [1062, 1586].includes(errorNumber(error) ?? 0);
}

/**
 * True if the statement's data is at fault, so that every attempt will fail: too long, malformed, out of range, NULL,
 * CHECK, foreign key.
 */
export function isDataError(error: unknown): boolean {
  return [1406, 1366, 1264, 1265, 1292, 1048, 3819, 4025, 1451, 1452, 1216, 1217].includes(errorNumber(error) ?? 0);
}
