/** Runs single tests of a file, and reads how they ended. */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../services/stack/run-command.ts";

/** A test that waits for something that never happens gives up by itself before this. */
const testTimeoutMs = 60_000;

export interface TestRun {
  /** By name. Tests that did not run are missing. */
  readonly results: ReadonlyMap<string, "passed" | "failed">;
  /** The end of what the run printed. */
  readonly output: string;
}

/** Runs the tests with these names in a file of the tree `root`. */
export async function runTests(root: string, file: string, names: readonly string[]): Promise<TestRun> {
  const report = join(root, "report.xml");
  await rm(report, { force: true });
  const pattern = names.map((name) => name.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|");
  const options = [
    `--timeout=${testTimeoutMs}`,
    `--test-name-pattern=${pattern}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
  ];
  const { output } = await runCommand([process.execPath, "test", ...options, `./${file}`], { folder: root });
  const xml = await readFile(report, "utf8").catch(() => "");
  return { results: resultsIn(xml), output: output.slice(-4_000) };
}

/** Reads a JUnit report. Skipped tests are left out. */
export function resultsIn(xml: string): TestRun["results"] {
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
