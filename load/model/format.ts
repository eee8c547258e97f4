/** What the commands and the tests print. */
import type { Counterexample, Exploration } from "./explorer.ts";
import type { Verdict } from "./mutants/judge.ts";

/** What was seen in one configuration. */
export function formatExploration(name: string, exploration: Exploration, elapsedMs: number): string {
  const { states, transitions, depth, ends } = exploration;
  const count = (value: number) => value.toLocaleString("en-US");
  const endings = [...ends].map(([ending, times]) => `${count(times)} ${ending}`);
  return [
    name,
    `  ${count(states)} states, ${count(transitions)} transitions, ${depth} steps deep, ${(elapsedMs / 1_000).toFixed(1)} s`,
    `  end states: ${endings.length === 0 ? "none" : endings.join(", ")}`,
  ].join("\n");
}

/** The shortest way to what is broken. */
export function formatCounterexample({ message, steps }: Counterexample): string {
  const width = String(steps.length).length;
  return [message, ...steps.map((step, at) => `  ${String(at + 1).padStart(width)}. ${step}`)].join("\n");
}

/** One line of the mutants' table. */
export function formatVerdict({ mutant, caughtBy }: Verdict): string {
  const subject = `${mutant.service.padEnd(9)} ${mutant.name.padEnd(67)}`;
  if (caughtBy === undefined) return `${subject} SURVIVED`;
  const { message, steps, configuration } = caughtBy;
  return `${subject} ${message} (${steps.length} steps; ${configuration})`;
}
