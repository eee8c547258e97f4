const startedAtMs = performance.now();

/** Prints a line about progress, with the seconds since the command started. The processes' logs go to files. */
export function say(message: string): void {
  const seconds = ((performance.now() - startedAtMs) / 1_000).toFixed(1).padStart(5);
  console.log(`${seconds} s  ${message}`);
}
