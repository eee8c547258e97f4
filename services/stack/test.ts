/**
 * `npm test`: every test, from nothing. Unit tests first; then the integration tests on a MariaDB and a Kafka of their
 * own; then the end-to-end tests, which start whole stacks. Ports and data are the tests' own, so that all this runs
 * beside a running `npm start`. Arguments name parts of file paths: `npm test -- relay`, `npm test -- .unit.`.
 * With `--mysql`, the integration tests alone, on MySQL instead of MariaDB: `npm run test:mysql`.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { say } from "./console.ts";
import { explained, StackError } from "./errors.ts";
import { lockEmptied } from "./servers.ts";
import { testEnvironment, testPortOffset, withTestServers } from "./test-servers.ts";

const root = join(import.meta.dir, "../..");
const dataFolder = join(root, ".data/test");
const mysqlFlag = "--mysql";
/** A test that hangs is a failure, not the end of all. */
const testTimeoutMs = 60_000;

let passed = 0;
let failed = 0;

/** Runs the test files in one process of Bun's and adds up their results. */
async function runTests(kind: string, files: readonly string[], extra: Readonly<Record<string, string>> = {}) {
  if (files.length === 0) return;
  const startedMs = performance.now();
  const report = join(dataFolder, `${kind}.xml`);
  await rm(report, { force: true });
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      `--timeout=${testTimeoutMs}`,
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...files.map((file) => `./${file}`),
    ],
    { cwd: root, env: { ...testEnvironment(), ...extra }, stdin: "ignore", stdout: "inherit", stderr: "inherit" },
  );
  const code = await child.exited;
  const counts = await readFile(report, "utf8").then(readCounts, () => ({ tests: 0, failures: 0, skipped: 0 }));
  passed += counts.tests - counts.failures - counts.skipped;
  // An error outside of any test fails the run, but is in no test's count.
  failed += code !== 0 && counts.failures === 0 ? 1 : counts.failures;
  say(`${kind}: ${counts.tests} tests in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
}

function readCounts(xml: string): { tests: number; failures: number; skipped: number } {
  const head = /<testsuites\b[^>]*>/.exec(xml)?.[0] ?? "";
  const count = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
  return { tests: count("tests"), failures: count("failures") + count("errors"), skipped: count("skipped") };
}

async function main(): Promise<void> {
  const onMysql = process.argv.includes(mysqlFlag);
  const filters = process.argv.slice(2).filter((argument) => argument !== mysqlFlag);
  const every = await Array.fromAsync(
    new Bun.Glob(`{proto,relay,services,load}/**/*.${onMysql ? "int" : "{unit,int,e2e}"}.test.ts`).scan(root),
  );
  const files = every.filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter))).sort();
  const ofKind = (kind: string) => files.filter((file) => file.endsWith(`.${kind}.test.ts`));
  if (files.length === 0) throw new StackError(`No test file's path contains ${filters.join(" or ")}.`);
  await mkdir(dataFolder, { recursive: true });

  await runTests("unit", ofKind("unit"));

  if (ofKind("int").length > 0) {
    await withTestServers(root, { mysql: onMysql }, (servers) => runTests("int", ofKind("int"), servers));
  }

  const stackFolder = join(dataFolder, "stack");
  if (ofKind("e2e").length > 0) await (await lockEmptied(stackFolder)).release();
  await runTests("e2e", ofKind("e2e"), {
    STACK_DATA_DIR: stackFolder,
    STACK_PORT_OFFSET: String(testPortOffset),
  });
}

try {
  await main();
} catch (error) {
  failed++;
  const shown = explained(error);
  console.error(shown instanceof StackError ? shown.message : shown);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
