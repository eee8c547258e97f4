/** What `npm run mutants` prints. */
import type { DeliveryVerdict } from "./judge.ts";

/** One line of the table. */
export function formatDeliveryVerdict({ mutant, isCaught }: DeliveryVerdict): string {
  const { name, file, caughtBy } = mutant;
  const verdict = isCaught ? `${caughtBy.file}: ${caughtBy.name}` : "SURVIVED";
  return `${name.padEnd(66)} ${file.padEnd(22)} ${verdict}`;
}
