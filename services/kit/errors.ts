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

/** How far causes are followed; one may be its own. */
export const causeDepthMax = 5;

/** An error and what caused it. Drivers and clients wrap a server's answer in errors of their own. */
export function* causesOf(error: unknown): Generator<Error> {
  for (let it: unknown = error, depth = 0; it instanceof Error && depth < causeDepthMax; it = it.cause, depth++)
    yield it;
}
