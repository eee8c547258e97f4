/** Something that the user can fix. The message says what is wrong and what to do; it is printed without a stack trace. */
export class StackError extends Error {
  override readonly name = "StackError";
}

/** Turns the file system's error about a full disk into a {@link StackError}. Returns every other error as it is. */
export function explained(error: unknown): unknown {
  if (error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT")) {
    return new StackError(`The disk is full: ${error.message}. Free some space, then try again.`);
  }
  return error;
}
