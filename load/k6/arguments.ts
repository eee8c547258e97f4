import { parseArguments, parseNumber } from "../arguments.ts";

/** What `npm run load` was asked to do. */
export interface LoadArguments {
  readonly ratePerSecond: number;
  /** The length of the run or, with `ramp`, of each step. */
  readonly seconds: number;
  /** The share of the orders that are watched, 0 to 0.9. */
  readonly watchShare: number;
  readonly ramp: boolean;
  readonly json: boolean;
}

export const usage = `npm run load -- [options]            places orders on the stack that npm start runs
  --rate N           orders a second (default 100); with --ramp, the first rate
  --seconds N        length of the run (default 60); with --ramp, of each step (default 10)
  --watch-share N    share of the orders that are watched until final, 0 to 0.9 (default 0.1)
  --ramp             find the knee: the highest rate at which every order ends and placed → final p99 is at most 1 s
  --json             print the figures as JSON`;

/** @throws StackError that says what is wrong and ends with the usage. */
export function parseLoadArguments(args: readonly string[]): LoadArguments {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArguments(args, {
    options: { rate: text, seconds: text, "watch-share": text, ramp: flag, json: flag },
    usage,
  });
  const { ramp, json, rate = "100", seconds = ramp ? "10" : "60", "watch-share": watchShare = "0.1" } = values;
  return {
    ratePerSecond: parseNumber("--rate", rate, { min: 1, max: 100_000 }, usage),
    seconds: parseNumber("--seconds", seconds, { min: 1, max: 86_400 }, usage),
    watchShare: parseNumber("--watch-share", watchShare, { min: 0, max: 0.9, fractional: true }, usage),
    ramp,
    json,
  };
}
