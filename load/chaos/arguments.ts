import { StackError } from "../../services/stack/errors.ts";
import {
  type BrokerCount,
  type Instances,
  instancesMax,
  oneInstanceEach,
  parseBrokers,
  parseInstances,
} from "../../services/stack/settings.ts";
import { parseArguments, parseNumber } from "../arguments.ts";

/** What `npm run chaos` was asked to do. */
export interface ChaosArguments {
  readonly minutes: number;
  readonly seed: number;
  readonly ratePerSecond: number;
  /** Words; empty for all kinds of faults. */
  readonly only: readonly string[];
  readonly brokers: BrokerCount;
  readonly instances: Instances;
}

const seedMax = 2 ** 31;

export const usage = `npm run chaos -- [options]           injects faults, on a stack of its own beside a running one
  --minutes N   how long faults are injected (default 1); each kind is injected at least once, which takes about 3
  --seed N      determines the faults, their order and targets (default: random, and printed)
  --rate N      orders a second (default 10)
  --only WORDS  only kinds of faults whose names contain one of these words, separated by commas
  --brokers N   Kafka brokers: 1 (default) or 3, with the faults of several brokers beside the others
  --instances order=2,relay=2   how many of each process run (default 1, at most ${instancesMax - 1})`;

/** @throws StackError that says what is wrong and ends with the usage. */
export function parseChaosArguments(args: readonly string[]): ChaosArguments {
  const text = { type: "string" } as const;
  const { values } = parseArguments(args, {
    options: { minutes: text, seed: text, rate: text, only: text, brokers: text, instances: text },
    usage,
  });
  const { minutes = "1", seed = String(Math.floor(Math.random() * seedMax)), rate = "10", only } = values;
  return {
    minutes: parseNumber("--minutes", minutes, { min: 0, max: 1_440, fractional: true }, usage),
    seed: parseNumber("--seed", seed, { min: 0, max: seedMax }, usage),
    ratePerSecond: parseNumber("--rate", rate, { min: 0, max: 1_000, fractional: true }, usage),
    only: only?.split(",") ?? [],
    brokers: values.brokers === undefined ? 1 : parseBrokers(values.brokers),
    instances: parseChaosInstances(values.instances),
  };
}

/** One fewer than the stack allows: some faults start one more. */
function parseChaosInstances(argument: string | undefined): Instances {
  const instances = argument === undefined ? oneInstanceEach : parseInstances(argument);
  if (Object.values(instances).every((count) => count < instancesMax)) return instances;
  throw new StackError(
    `--instances takes at most ${instancesMax - 1} each here: some faults start one more.\n${usage}`,
  );
}
