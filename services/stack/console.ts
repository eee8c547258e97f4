const startedAtMs = performance.now();

/** One line about progress, with the seconds since the command began. The command's own words; logs go to files. */
export function say(message: string): void {
  const seconds = ((performance.now() - startedAtMs) / 1_000).toFixed(1).padStart(5);
  console.log(`${seconds} s  ${message}`);
}
