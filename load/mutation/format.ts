/** The text that `npm run mutants` prints. */
import type { DeliveryVerdict } from "./judge.ts";

/** Printed as soon as the mutant is judged. */
export function formatDeliveryVerdict({ mutant, isCaught }: DeliveryVerdict): string {
  const { name, file, caughtBy } = mutant;
  return `${file}: ${name}\n  ${isCaught ? `caught by ${caughtBy.file}: ${caughtBy.name}` : "SURVIVED"}`;
}

/** How many mutants were caught. */
export function formatDeliveryVerdicts(verdicts: readonly DeliveryVerdict[], elapsedMs: number): string {
  const caught = verdicts.filter(({ isCaught }) => isCaught).length;
  const seconds = (elapsedMs / 1_000).toFixed(0);
  return `${verdicts.length} mutants, ${caught} caught, ${verdicts.length - caught} survived, ${seconds} s`;
}
