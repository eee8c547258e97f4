/**
 * `npm run explore`: every state that the saga can be in. `npm run explore -- --mutants`: whether the exploration would
 * notice if the domain code were wrong.
 */

import { parseArgs } from "node:util";
import { messageOf } from "../../services/kit/errors.ts";
import { largeConfigurations, realDomains, smallConfigurations } from "./configurations.ts";
import { explore } from "./explorer.ts";
import { formatCounterexample, formatExploration, formatVerdict } from "./format.ts";
import { judgeMutants } from "./mutants/judge.ts";
import { mutants } from "./mutants/mutants.ts";

function exploreAll(): boolean {
  for (const { name, ...options } of [...smallConfigurations, ...largeConfigurations]) {
    const startedMs = performance.now();
    const exploration = explore({ ...options, domains: realDomains });
    console.log(formatExploration(name, exploration, performance.now() - startedMs));
    if (exploration.counterexample === undefined) continue;
    console.log(`\n${formatCounterexample(exploration.counterexample)}`);
    return false;
  }
  console.log("\nEvery state is legal, and from every state an end can be reached.");
  return true;
}

async function exploreMutants(): Promise<boolean> {
  const startedMs = performance.now();
  const verdicts = await judgeMutants(mutants, (verdict) => console.log(formatVerdict(verdict)));
  const survivors = verdicts.filter(({ caughtBy }) => caughtBy === undefined).length;
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
  console.log(
    `\n${verdicts.length} mutants, ${verdicts.length - survivors} caught, ${survivors} survived, ${seconds} s`,
  );
  return survivors === 0;
}

try {
  const { values } = parseArgs({ options: { mutants: { type: "boolean", default: false } } });
  process.exitCode = (values.mutants ? await exploreMutants() : exploreAll()) ? 0 : 1;
} catch (error) {
  console.error(messageOf(error));
  console.error("npm run explore [-- --mutants]");
  process.exitCode = 1;
}
