/** `npm run simulate -- --seeds N --from S`: random walks, each with its own seed. */

import { parseArgs } from "node:util";
import { messageOf } from "../../services/kit/errors.ts";
import { simulate } from "./walks.ts";

const usage = `npm run simulate -- [options]
  --seeds N   how many walks (default 1000)
  --from S    the first seed (default 1); each walk has the next one`;
const seedMax = 2 ** 32 - 1;
const reportEvery = 10_000;

function wholeNumber(name: string, value: string, min: number): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= min && number <= seedMax) return number;
  throw new Error(`${name} takes a whole number from ${min} to ${seedMax}, but is "${value}".`);
}

function add(to: Map<string, number>, counts: ReadonlyMap<string, number>): void {
  for (const [name, count] of counts) to.set(name, (to.get(name) ?? 0) + count);
}

function table(counts: ReadonlyMap<string, number>): string {
  const rows = [...counts].sort(([, a], [, b]) => b - a);
  return rows.map(([name, count]) => `  ${count.toLocaleString("en-US").padStart(13)}  ${name}`).join("\n");
}

function run(seeds: number, from: number): boolean {
  const startedMs = performance.now();
  const endings = new Map<string, number>();
  const faults = new Map<string, number>();
  let steps = 0;
  for (let done = 0; done < seeds; done++) {
    const walk = simulate(from + done);
    if (walk.broken !== undefined) {
      const { trace, broken } = simulate(walk.seed, { trace: true });
      console.log(`Seed ${walk.seed}, after ${walk.steps} steps, the last of which were:\n  ${trace.join("\n  ")}`);
      console.log(`\nSeed ${walk.seed}: ${broken}\nAgain: npm run simulate -- --seeds 1 --from ${walk.seed}`);
      return false;
    }
    steps += walk.steps;
    add(endings, walk.endings);
    add(faults, walk.faults);
    if ((done + 1) % reportEvery === 0) console.error(`${done + 1} walks …`);
  }
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
  const total = steps.toLocaleString("en-US");
  console.log(`${seeds} walks (seeds ${from} to ${from + seeds - 1}), ${total} steps, ${seconds} s: nothing broken.`);
  console.log(`Orders:\n${table(endings)}\nFaults:\n${table(faults)}`);
  return true;
}

try {
  const { values } = parseArgs({
    options: { seeds: { type: "string", default: "1000" }, from: { type: "string", default: "1" } },
  });
  process.exitCode = run(wholeNumber("--seeds", values.seeds, 1), wholeNumber("--from", values.from, 0)) ? 0 : 1;
} catch (error) {
  console.error(`${messageOf(error)}\n${usage}`);
  process.exitCode = 1;
}
