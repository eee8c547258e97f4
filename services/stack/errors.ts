/** Something that the user can mend: the message says what is wrong and what to do, and is printed without a stack trace. */
export class StackError extends Error {
  override readonly name = "StackError";
}

/** Turns what the file system says about a full disk into a {@link StackError}; everything else stays as it is. */
export function explained(error: unknown): unknown {
  if (error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT")) {
    return new StackError(`The disk is full: ${error.message}. Free some space, then run this again.`);
  }
  return error;
}
