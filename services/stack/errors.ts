import { ConfigError } from "../kit/config.ts";

/** Something that the user can fix. The message says what is wrong and what to do. */
export class StackError extends Error {
  override readonly name = "StackError";
}

/** Turns the file system's error about a full disk into a {@link StackError}. Returns every other error as it is. */
export function explainFullDisk(error: unknown): unknown {
  if (error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT")) {
    return new StackError(`The disk is full: ${error.message}. Free some space, then try again.`);
  }
  return error;
}

/** Prints an error that ends a command: only the message if the user can fix it, otherwise with the stack trace. */
export function printError(error: unknown): void {
  const shown = explainFullDisk(error);
  console.error(shown instanceof StackError || shown instanceof ConfigError ? shown.message : shown);
}
