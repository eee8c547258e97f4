/**
 * The caller's mistakes. Everything else that goes wrong is thrown as it comes, and its receiver decides:
 * the RPC surface answers UNAVAILABLE or INTERNAL, the consumer tries again.
 */
export type DomainErrorCode = "INVALID_ARGUMENT" | "NOT_FOUND" | "ALREADY_EXISTS" | "FAILED_PRECONDITION";

/** A mistake of the caller's, with a message that names what is wrong and what to do. */
export class DomainError extends Error {
  override readonly name = "DomainError";
  constructor(
    readonly code: DomainErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** Something that this process needs is away, or did not answer in time. Nothing is known to be wrong with the request. */
export class UnavailableError extends Error {
  override readonly name: string = "UnavailableError";
}

/** Closes a switch over a union: a new member that nobody handles is a type error, and at run time throws. */
export function unreachable(value: never): never {
  throw new Error(`unexpected value: ${JSON.stringify(value)}`);
}

/** How far a chain of causes is followed; an error may be its own cause. */
const causeDepthMax = 5;

/** An error and its causes. Drivers and clients wrap a server's answer in errors of their own. */
export function* causesOf(error: unknown): Generator<Error> {
  for (let it: unknown = error, depth = 0; it instanceof Error && depth < causeDepthMax; it = it.cause, depth++)
    yield it;
}

/** An error's message alone, for a person at a terminal. Where it is empty: that of the first inner error, or the code. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const inner = error instanceof AggregateError ? error.errors[0] : undefined;
  return error.message || (inner instanceof Error ? inner.message : "") || String((error as { code?: unknown }).code);
}

/** As much of an error as `last_error` and a dead-letter record hold. */
const errorLengthMax = 2_000;

/** An error for a log, a column or a header: its name and message and those of its causes, well-formed, without NUL. */
export function describeError(error: unknown): string {
  const parts = [...causesOf(error)].map((it) => `${it.name}: ${it.message}`);
  const text = parts.length === 0 ? String(error) : [...new Set(parts)].join(" ← ");
  return text.replaceAll("\0", "\u{FFFD}").slice(0, errorLengthMax).toWellFormed();
}
