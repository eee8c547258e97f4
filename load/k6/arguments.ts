import { parseArgs } from "node:util";
import { messageOf } from "../../services/kit/errors.ts";
import { StackError } from "../../services/stack/errors.ts";

/** What the command was asked to do. */
export interface LoadArguments {
  readonly ratePerSecond: number;
  /** Of the run; with `ramp`, of each step. */
  readonly seconds: number;
  readonly watchShare: number;
  readonly ramp: boolean;
  readonly json: boolean;
}

export const usage = `npm run load -- [options]            against a stack that npm start has started
  --rate N           orders a second (default 100); with --ramp, where the search begins
  --seconds N        how long (default 60); with --ramp, each step (default 10)
  --watch-share N    share of the orders that are watched until final, 0 to 0.9 (default 0.1)
  --ramp             find the knee: the highest rate with every order final and placed → final p99 within 1 s
  --json             the figures as JSON on the standard output`;

/** @throws StackError that says what is wrong and how it is used. */
export function parseLoadArguments(args: readonly string[]): LoadArguments {
  const { values } = parse(args);
  const ramp = values.ramp ?? false;
  return {
    ratePerSecond: number("--rate", values.rate ?? "100", { min: 1, max: 100_000, whole: true }),
    seconds: number("--seconds", values.seconds ?? (ramp ? "10" : "60"), { min: 1, max: 86_400, whole: true }),
    watchShare: number("--watch-share", values["watch-share"] ?? "0.1", { min: 0, max: 0.9, whole: false }),
    ramp,
    json: values.json ?? false,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: false,
      options: {
        rate: { type: "string" },
        seconds: { type: "string" },
        "watch-share": { type: "string" },
        ramp: { type: "boolean" },
        json: { type: "boolean" },
      },
    });
  } catch (error) {
    throw new StackError(`${messageOf(error)}\n${usage}`);
  }
}

function number(
  name: string,
  value: string,
  { min, max, whole }: { readonly min: number; readonly max: number; readonly whole: boolean },
): number {
  const parsed = Number(value);
  const isGood = value.trim() !== "" && parsed >= min && parsed <= max && (!whole || Number.isInteger(parsed));
  if (isGood) return parsed;
  throw new StackError(
    `${name} takes a ${whole ? "whole number" : "number"} from ${min} to ${max}, but is "${value}".\n${usage}`,
  );
}
