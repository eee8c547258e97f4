/**
 * Tests the saga's real domain code without databases or brokers. `npm run explore` visits every state that a few
 * orders can reach, `npm run simulate` walks many orders through the system at random, and
 * `npm run explore -- --mutants` shows whether the explorer would notice mistakes in the domain code.
 */
import { printError, StackError } from "../../services/stack/errors.ts";
import { parseArguments, parseNumber } from "../arguments.ts";
import { largeConfigurations, smallConfigurations } from "./explorer/configurations.ts";
import { explore } from "./explorer/explorer.ts";
import {
  formatBrokenWalk,
  formatCounterexample,
  formatExploration,
  formatVerdict,
  formatVerdicts,
  formatWalks,
} from "./format.ts";
import { judgeMutants } from "./mutants/judge.ts";
import { mutants } from "./mutants/mutants.ts";
import { walkSeeds } from "./walks/totals.ts";
import { realDomains } from "./world/services.ts";

const exploreUsage = `npm run explore -- [options]   visits every state that the saga of one or two orders can reach
  --mutants   explores wrong changes of the domain code instead, and must catch each of them`;

const walksUsage = `npm run simulate -- [options]   walks many orders through the system at random
  --seeds N   the number of walks (default 1000)
  --from S    the seed of the first walk (default 1); each further walk takes the next seed`;

const seedMax = 2 ** 32 - 1;
const progressEvery = 10_000;

/** By first argument, as package.json passes it. Each returns whether all is well. */
const commands: Readonly<Record<string, (args: readonly string[]) => boolean | Promise<boolean>>> = {
  explore(args) {
    const options = { mutants: { type: "boolean", default: false } } as const;
    const { values } = parseArguments(args, { options, usage: exploreUsage });
    return values.mutants ? exploreMutants() : exploreAll();
  },
  walks(args) {
    const options = { seeds: { type: "string", default: "1000" }, from: { type: "string", default: "1" } } as const;
    const { values } = parseArguments(args, { options, usage: walksUsage });
    const seeds = parseNumber("--seeds", values.seeds, { min: 1, max: seedMax }, walksUsage);
    const from = parseNumber("--from", values.from, { min: 0, max: seedMax }, walksUsage);
    return walkAll(seeds, from);
  },
};

function exploreAll(): boolean {
  for (const { name, ...options } of [...smallConfigurations, ...largeConfigurations]) {
    const startedMs = performance.now();
    const exploration = explore({ ...options, domains: realDomains });
    console.log(formatExploration(name, exploration, performance.now() - startedMs));
    if (exploration.counterexample === undefined) continue;
    console.log(`\n${formatCounterexample(exploration.counterexample)}`);
    return false;
  }
  console.log("\nEvery state keeps the promises, and from every state an end can be reached.");
  return true;
}

async function exploreMutants(): Promise<boolean> {
  const startedMs = performance.now();
  const verdicts = await judgeMutants(mutants, (verdict) => console.log(formatVerdict(verdict)));
  console.log(`\n${formatVerdicts(verdicts, performance.now() - startedMs)}`);
  return verdicts.every(({ caughtBy }) => caughtBy !== undefined);
}

function walkAll(seeds: number, from: number): boolean {
  const startedMs = performance.now();
  const result = walkSeeds({ seeds, from }, (done) => {
    if (done % progressEvery === 0) console.error(`${done} walks …`);
  });
  console.log(
    "broken" in result ? formatBrokenWalk(result.broken) : formatWalks(result.totals, performance.now() - startedMs),
  );
  return !("broken" in result);
}

const [name = "", ...args] = process.argv.slice(2);
try {
  const command = commands[name];
  if (command === undefined) throw new StackError(`${exploreUsage}\n\n${walksUsage}`);
  process.exitCode = (await command(args)) ? 0 : 1;
} catch (error) {
  printError(error);
  process.exitCode = 1;
}
