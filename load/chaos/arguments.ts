import { parseArguments, parseNumber } from "../arguments.ts";

/** What `npm run chaos` was asked to do. */
export interface ChaosArguments {
  readonly minutes: number;
  readonly seed: number;
  readonly ratePerSecond: number;
  /** Words; empty for all kinds of faults. */
  readonly only: readonly string[];
}

const seedMax = 2 ** 31;

export const usage = `npm run chaos -- [options]           injects faults, on a stack of its own beside a running one
  --minutes N   how long faults are injected (default 1); each kind is injected at least once, which takes about 3
  --seed N      determines the faults, their order and targets (default: random, and printed)
  --rate N      orders a second (default 10)
  --only WORDS  only kinds of faults whose names contain one of these words, separated by commas`;

/** @throws StackError that says what is wrong and ends with the usage. */
export function parseChaosArguments(args: readonly string[]): ChaosArguments {
  const text = { type: "string" } as const;
  const { values } = parseArguments(args, { options: { minutes: text, seed: text, rate: text, only: text }, usage });
  const { minutes = "1", seed = String(Math.floor(Math.random() * seedMax)), rate = "10", only } = values;
  return {
    minutes: parseNumber("--minutes", minutes, { min: 0, max: 1_440, fractional: true }, usage),
    seed: parseNumber("--seed", seed, { min: 0, max: seedMax }, usage),
    ratePerSecond: parseNumber("--rate", rate, { min: 0, max: 1_000, fractional: true }, usage),
    only: only?.split(",") ?? [],
  };
}
