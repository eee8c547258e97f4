/** `npm run chaos`: faults on the real processes under load, on a stack of its own. */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { ConfigError, environment } from "../../services/kit/config.ts";
import { messageOf } from "../../services/kit/errors.ts";
import { explained, StackError } from "../../services/stack/errors.ts";
import { runChaos } from "./chaos.ts";
import { formatChaos } from "./report.ts";
import { readChaosSettings } from "./settings.ts";

const usage = `npm run chaos -- [options]           on a stack of its own, beside a running one
  --minutes N   how long faults are started (default 1); each kind comes once at the least, which takes about 3
  --seed N      draws the faults, their order and what they hit (default: by chance, and printed)
  --rate N      orders a second (default 10)
  --only WORDS  only kinds of faults whose names contain one of these words, separated by commas`;
const minutesMax = 1_440;
const rateMax = 1_000;
const seedLimit = 2 ** 31;

function number(name: string, value: string, max: number): number {
  if (/^\d+(\.\d+)?$/.test(value) && Number(value) <= max) return Number(value);
  throw new StackError(`--${name} takes a number up to ${max}, but is "${value}".\n${usage}`);
}

function readArguments() {
  const text = { type: "string" } as const;
  try {
    return parseArgs({
      args: process.argv.slice(2),
      options: { minutes: text, seed: text, rate: text, only: text },
    }).values;
  } catch (error) {
    throw new StackError(`${messageOf(error)}\n${usage}`);
  }
}

const stopping = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => stopping.abort());
try {
  const { minutes = "1", seed, rate = "10", only } = readArguments();
  const result = await runChaos({
    settings: readChaosSettings(environment(), join(import.meta.dir, "../..")),
    durationMs: number("minutes", minutes, minutesMax) * 60_000,
    seed: seed === undefined ? Math.floor(Math.random() * seedLimit) : number("seed", seed, seedLimit),
    ratePerSecond: number("rate", rate, rateMax),
    ...(only === undefined ? {} : { only: only.split(",") }),
    signal: stopping.signal,
  });
  console.log(`\n${formatChaos(result)}`);
  process.exit(result.wrongs.length === 0 ? 0 : 1);
} catch (error) {
  const shown = explained(error);
  console.error(shown instanceof StackError || shown instanceof ConfigError ? shown.message : shown);
  process.exit(1);
}
