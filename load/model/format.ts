/** The text that the commands and the tests print. */
import { formatTable } from "../../services/kit/table.ts";
import type { Counterexample, Exploration } from "./explorer/explorer.ts";
import type { Verdict } from "./mutants/judge.ts";
import type { WalkTotals } from "./walks/totals.ts";
import type { WalkResult } from "./walks/walk.ts";

const count = (value: number) => value.toLocaleString("en-US");
const seconds = (elapsedMs: number) => `${(elapsedMs / 1_000).toFixed(1)} s`;

export function formatExploration(name: string, exploration: Exploration, elapsedMs: number): string {
  const { states, transitions, depth, ends } = exploration;
  const endings = [...ends].map(([ending, times]) => `${count(times)} ${ending}`);
  return [
    name,
    `  ${count(states)} states, ${count(transitions)} transitions, ${depth} steps deep, ${seconds(elapsedMs)}`,
    `  end states: ${endings.length === 0 ? "none" : endings.join(", ")}`,
  ].join("\n");
}

/** The broken promise, and below it the steps that lead there. */
export function formatCounterexample({ message, steps }: Counterexample): string {
  const width = String(steps.length).length;
  return [message, ...steps.map((step, at) => `  ${String(at + 1).padStart(width)}. ${step}`)].join("\n");
}

/** One line, printed as soon as the mutant is judged. */
export function formatVerdict({ mutant, caughtBy }: Verdict): string {
  const verdict =
    caughtBy === undefined
      ? "SURVIVED"
      : `${caughtBy.message} (${caughtBy.steps.length} steps; ${caughtBy.configuration})`;
  return `${mutant.service}: ${mutant.name}\n  ${verdict}`;
}

/** How many mutants were caught. */
export function formatVerdicts(verdicts: readonly Verdict[], elapsedMs: number): string {
  const survived = verdicts.filter(({ caughtBy }) => caughtBy === undefined).length;
  return `${verdicts.length} mutants, ${verdicts.length - survived} caught, ${survived} survived, ${seconds(elapsedMs)}`;
}

export function formatBrokenWalk({ seed, steps, trace, broken }: WalkResult): string {
  return [
    `Seed ${seed} broke a promise after ${count(steps)} steps. The last steps:`,
    ...trace.map((step) => `  ${step}`),
    `\nSeed ${seed}: ${broken}`,
    `To repeat: npm run simulate -- --seeds 1 --from ${seed}`,
  ].join("\n");
}

export function formatWalks({ seeds, from, steps, outcomes, faults }: WalkTotals, elapsedMs: number): string {
  const table = (heading: string, counts: ReadonlyMap<string, number>) => {
    const rows = [...counts].sort(([, a], [, b]) => b - a).map(([name, times]) => [name, count(times)]);
    return formatTable([heading, "count"], rows, { rightAligned: [1] });
  };
  const walks = `${count(seeds)} walks (seeds ${from} to ${from + seeds - 1}), ${count(steps)} steps, ${seconds(elapsedMs)}`;
  return `${walks}: no promise was broken.\n\n${table("order", outcomes)}\n\n${table("fault", faults)}`;
}
