/** Applies mutants to a copy of the source tree, one at a time, and runs the test that must fail because of each. */
import { cp, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { applyChange } from "./change.ts";
import type { DeliveryMutant } from "./delivery-mutant.ts";
import { runTests } from "./test-run.ts";

/** Whether a mutant was caught: whether its test failed. */
export interface DeliveryVerdict {
  readonly mutant: DeliveryMutant;
  readonly isCaught: boolean;
}

const root = join(import.meta.dir, "../..");
const copied = ["proto", "relay", "services", "load", "package.json", "tsconfig.json", "bunfig.toml"];

/**
 * Runs each mutant's test on it. Calls `report` after each mutant. Needs the servers of the integration tests.
 * @throws Error if a mutant's quote does not occur in the code, and if its test does not exist or fails without the
 * mutant: then its failure would prove nothing.
 */
export async function judgeDeliveryMutants(
  mutants: readonly DeliveryMutant[],
  report: (verdict: DeliveryVerdict) => void = () => undefined,
): Promise<readonly DeliveryVerdict[]> {
  // Inside the project's folder, so that the copy finds node_modules.
  const tree = join(root, ".data/mutants", crypto.randomUUID());
  try {
    await mkdir(tree, { recursive: true });
    for (const name of copied) await cp(join(root, name), join(tree, name), { recursive: true });
    const mutated = await Promise.all(mutants.map(mutate));
    await requirePassing(tree, mutants);
    const verdicts: DeliveryVerdict[] = [];
    for (const [index, mutant] of mutants.entries()) {
      const verdict = { mutant, isCaught: await isCaught(tree, mutant, mutated[index] ?? "") };
      report(verdict);
      verdicts.push(verdict);
    }
    return verdicts;
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

/** The text of the mutant's file with its changes. */
async function mutate({ name, file, changes }: DeliveryMutant): Promise<string> {
  const text = await readFile(join(root, file), "utf8");
  return changes.reduce((changed, change) => applyChange(changed, change, { name, file }), text);
}

async function isCaught(tree: string, { name, file, caughtBy }: DeliveryMutant, mutated: string): Promise<boolean> {
  const path = join(tree, file);
  const original = await readFile(path, "utf8");
  await Bun.write(path, mutated);
  const { results, output } = await runTests(tree, caughtBy.file, [caughtBy.name]);
  await Bun.write(path, original);
  const result = results.get(caughtBy.name);
  // A mutant that cannot even be loaded is not caught: its test said nothing about it.
  if (result === undefined) throw new Error(`The test of the mutant "${name}" did not run:\n${output}`);
  return result === "failed";
}

/** Runs the tests on the code without mutants. */
async function requirePassing(tree: string, mutants: readonly DeliveryMutant[]): Promise<void> {
  for (const [file, some] of Map.groupBy(mutants, ({ caughtBy }) => caughtBy.file)) {
    const names = [...new Set(some.map(({ caughtBy }) => caughtBy.name))];
    const { results, output } = await runTests(tree, file, names);
    const bad = names.filter((name) => results.get(name) !== "passed");
    if (bad.length === 0) continue;
    throw new Error(`Without any mutant, these tests of ${file} fail or do not exist:\n${bad.join("\n")}\n${output}`);
  }
}
