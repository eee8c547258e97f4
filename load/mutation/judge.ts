/** Makes mutants of the delivery code in a copy of the tree, and lets the named tests look for them. */
import { cp, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { environment } from "../../services/kit/config.ts";
import { applyChange } from "./change.ts";
import type { DeliveryMutant, NamedTest } from "./delivery.ts";

/** What its test made of a mutant. */
export interface DeliveryVerdict {
  readonly mutant: DeliveryMutant;
  readonly isCaught: boolean;
}

const root = join(import.meta.dir, "../..");
const copied = ["proto", "relay", "services", "load", "package.json", "tsconfig.json", "bunfig.toml"];
/** A test that waits for what never comes gives up by itself before that. */
const testTimeoutMs = 60_000;

/**
 * Runs each mutant's test on it; `report` hears of each as it is done. Needs the tests' servers.
 * @throws Error for a mutant whose text has moved on, and for a test that is not there or fails on the code as it is:
 * what it says of a mutant would mean nothing.
 */
export async function judgeDeliveryMutants(
  mutants: readonly DeliveryMutant[],
  report: (verdict: DeliveryVerdict) => void = () => undefined,
): Promise<readonly DeliveryVerdict[]> {
  // Within the project's folder, so that packages are found.
  const tree = join(root, ".data/mutants", crypto.randomUUID());
  try {
    await mkdir(tree, { recursive: true });
    for (const name of copied) await cp(join(root, name), join(tree, name), { recursive: true });
    const mutated = await Promise.all(mutants.map(mutate));
    await requireGreen(tree, mutants);
    const verdicts: DeliveryVerdict[] = [];
    for (const [index, mutant] of mutants.entries()) {
      const path = join(tree, mutant.file);
      const original = await readFile(path, "utf8");
      await Bun.write(path, mutated[index] ?? "");
      const { results, output } = await runTests(tree, mutant.caughtBy.file, [mutant.caughtBy.name]);
      await Bun.write(path, original);
      const result = results.get(mutant.caughtBy.name);
      // A mutant that does not even load is caught by nobody.
      if (result === undefined) throw new Error(`The mutant "${mutant.name}" did not get to its test:\n${output}`);
      const verdict = { mutant, isCaught: result === "failed" };
      report(verdict);
      verdicts.push(verdict);
    }
    return verdicts;
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

async function mutate({ name, file, changes }: DeliveryMutant): Promise<string> {
  const text = await readFile(join(root, file), "utf8");
  return changes.reduce((changed, change) => applyChange(changed, change, { name, file }), text);
}

async function requireGreen(tree: string, mutants: readonly DeliveryMutant[]): Promise<void> {
  const byFile = Map.groupBy(mutants, ({ caughtBy }) => caughtBy.file);
  for (const [file, some] of byFile) {
    const names = [...new Set(some.map(({ caughtBy }) => caughtBy.name))];
    const { results, output } = await runTests(tree, file, names);
    const bad = names.filter((name) => results.get(name) !== "passed");
    if (bad.length > 0)
      throw new Error(`Of the code as it is, ${file} fails or does not have:\n${bad.join("\n")}\n${output}`);
  }
}

/** The tests of those names in a file, each with how it ended. */
async function runTests(
  tree: string,
  file: NamedTest["file"],
  names: readonly NamedTest["name"][],
): Promise<{ readonly results: ReadonlyMap<string, "passed" | "failed">; readonly output: string }> {
  const report = join(tree, "report.xml");
  await rm(report, { force: true });
  const pattern = names.map((name) => name.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|");
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      `--timeout=${testTimeoutMs}`,
      `--test-name-pattern=${pattern}`,
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      `./${file}`,
    ],
    { cwd: tree, env: environment(), stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  const [out, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const xml = await readFile(report, "utf8").catch(() => "");
  return { results: resultsIn(xml), output: `${out}${errors}`.slice(-4_000) };
}

/** How the tests of a JUnit report ended, by name; those that were skipped are left out. */
export function resultsIn(xml: string): ReadonlyMap<string, "passed" | "failed"> {
  const results = new Map<string, "passed" | "failed">();
  for (const [, name = "", , inside = ""] of xml.matchAll(
    /<testcase name="([^"]*)"[^>]*?(\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    if (inside.includes("<skipped")) continue;
    results.set(unescaped(name), /<(failure|error)\b/.test(inside) ? "failed" : "passed");
  }
  return results;
}

const entities: Readonly<Record<string, string>> = { quot: '"', apos: "'", lt: "<", gt: ">", amp: "&", "#39": "'" };

const unescaped = (text: string) => text.replaceAll(/&(#?\w+);/g, (whole, name: string) => entities[name] ?? whole);
