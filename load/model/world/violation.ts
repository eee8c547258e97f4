/** How the model reports that the code breaks a promise. The promises, I1 to I9, are listed in the README. */
import { messageOf } from "../../../services/kit/errors.ts";

/** A broken promise. The message says which one, and how. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** Throws a Violation with the message `otherwise` unless the condition holds. */
export function demand(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Violation(otherwise);
}

/** One line on what went wrong: a broken promise, or an exception in the code under test. */
export function describeProblem(error: unknown): string {
  return error instanceof Violation ? error.message : `exception: ${messageOf(error)}`;
}
