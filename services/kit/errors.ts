/**
 * What a caller can get wrong. All other errors are thrown as they are, and the code that catches them decides: the RPC
 * server answers UNAVAILABLE or INTERNAL, the consumer retries or parks.
 */
export type DomainErrorCode = "INVALID_ARGUMENT" | "NOT_FOUND" | "ALREADY_EXISTS" | "FAILED_PRECONDITION";

/** The caller's mistake. The message, which the caller sees, says what is wrong and how to correct it. */
export class DomainError extends Error {
  override readonly name = "DomainError";
  constructor(
    readonly code: DomainErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** Something that this process depends on is away or did not answer in time. The same request may succeed later. */
export class UnavailableError extends Error {
  override readonly name: string = "UnavailableError";
}

/**
 * A row that this version of the service cannot read: it is in a status that only another version knows, or it is damaged.
 * The row must be left as it is, and no other row may suffer from it.
 */
export class UnreadableRowError extends Error {
  override readonly name = "UnreadableRowError";
}

/** Closes a switch over a union: if the union grows, the unhandled member is a type error. Throws at run time. */
export function unreachable(value: never): never {
  throw new Error(`Unexpected value: ${JSON.stringify(value)}`);
}

/** The most causes that are followed, because an error may be its own cause. */
const causeDepthMax = 5;

/** The error and its causes, outermost first. Drivers and clients wrap a server's answer in errors of their own. */
export function* causesOf(error: unknown): Generator<Error> {
  for (let it: unknown = error, depth = 0; it instanceof Error && depth < causeDepthMax; it = it.cause, depth++)
    yield it;
}

/** The error's message, for a person at a terminal. If it is empty: the first inner error's message, or the code. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const inner = error instanceof AggregateError ? error.errors[0] : undefined;
  return error.message || (inner instanceof Error ? inner.message : "") || String((error as { code?: unknown }).code);
}

/** The longest error text that `last_error` and a dead-letter record hold. */
const errorLengthMax = 2_000;

/**
 * The names and messages of the error and its causes, as text for a log, a column or a header: well-formed Unicode, no
 * NUL, at most 2,000 characters.
 */
export function describeError(error: unknown): string {
  const parts = [...causesOf(error)].map((it) => `${it.name}: ${it.message}`);
  const text = parts.length === 0 ? String(error) : [...new Set(parts)].join(" ← ");
  return text.replaceAll("\0", "\u{FFFD}").slice(0, errorLengthMax).toWellFormed();
}
