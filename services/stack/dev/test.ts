/**
 * `npm test`: every test, from nothing. Each file of integration or end-to-end tests runs in its own process, and two
 * files run at a time, because most of them mostly wait. Each of the two lanes has its own ports and data: first stacks
 * for the end-to-end tests, then a MariaDB and a Kafka for the integration tests. All of it can run beside an `npm start`.
 * Arguments select files by parts of their paths: `npm test -- relay`, `npm test -- .unit.`.
 * `--mysql` (`npm run test:mysql`) runs only the integration tests, on MySQL instead of MariaDB.
 */
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { say } from "../console.ts";
import { printError, StackError } from "../errors.ts";
import { ensurePrograms } from "../servers/downloads.ts";
import { ensureMysql } from "../servers/mysql.ts";
import { lockAndEmpty } from "../servers/servers.ts";
import { readStackSettings } from "../settings.ts";
import { type TestServerOptions, testEnvironment, testPortOffset, withTestServers } from "./test-servers.ts";

const root = join(import.meta.dir, "../../..");
const dataFolder = join(root, ".data/test");
const mysqlFlag = "--mysql";
/** On two cores, more are no faster. */
const lanesMax = 2;
/** Between the ports of two lanes. Chaos uses those 2,000 above its lane. By default all are below the ephemeral ports. */
const lanePortStep = 1_000;
/** A test that hangs fails after this, and the others go on. */
const testTimeoutMs = 60_000;

let passed = 0;
let failed = 0;

/** Runs test files in one process, adds their results to the counts, and prints its output when it has ended. */
async function runTests(name: string, files: readonly string[], extra: Readonly<Record<string, string>> = {}) {
  const startedMs = performance.now();
  const report = join(dataFolder, `${name.replaceAll("/", "-")}.xml`);
  await rm(report, { force: true });
  // A file instead of a pipe: a process that a test left behind would keep a pipe open.
  const log = report.replace(/xml$/, "log");
  const output = openSync(log, "w");
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      `--timeout=${testTimeoutMs}`,
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...files.map((file) => `./${file}`),
    ],
    {
      cwd: root,
      env: { ...testEnvironment(), ...extra },
      stdio: ["ignore", output, output],
    },
  );
  const code = await child.exited;
  closeSync(output);
  console.log((await readFile(log, "utf8")).trim());
  const counts = await readFile(report, "utf8").then(readCounts, () => ({ tests: 0, failures: 0, skipped: 0 }));
  passed += counts.tests - counts.failures - counts.skipped;
  // An error outside of any test fails the run, but is not in the counts.
  failed += code !== 0 && counts.failures === 0 ? 1 : counts.failures;
  say(`${name}: ${counts.tests} tests in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
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

  const unit = ofKind("unit");
  if (unit.length > 0) await runTests("unit", unit);
  // The longest first: end-to-end tests, and of the integration tests the services' and the relay's before those in load/.
  const endToEnd = ofKind("e2e");
  const integration = ofKind("int").reverse();
  const lanes = Math.min(lanesMax, endToEnd.length + integration.length);
  if (lanes === 0) return;
  // Before the lanes start, so that they do not both download.
  const { cacheFolder } = readStackSettings(testEnvironment(), root);
  await ensurePrograms(cacheFolder);
  if (onMysql) await ensureMysql(cacheFolder);
  const results = await Promise.allSettled(
    Array.from({ length: lanes }, async (_, lane) => {
      const portOffset = testPortOffset + lane * lanePortStep;
      await runEndToEnd(endToEnd, join(dataFolder, `stack-${lane}`), portOffset);
      await runIntegration(integration, { mysql: onMysql, folder: join(dataFolder, `servers-${lane}`), portOffset });
    }),
  );
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

/** Runs the end-to-end tests in `files` until none are left. Both lanes take from the same list. */
async function runEndToEnd(files: string[], stackFolder: string, portOffset: number): Promise<void> {
  if (files.length === 0) return;
  await (await lockAndEmpty(stackFolder)).release();
  for (let file = files.shift(); file !== undefined; file = files.shift()) {
    await runTests(file, [file], { STACK_DATA_DIR: stackFolder, STACK_PORT_OFFSET: String(portOffset) });
  }
}

/** The same for the integration tests, which need only servers. */
async function runIntegration(files: string[], servers: TestServerOptions): Promise<void> {
  if (files.length === 0) return;
  await withTestServers(root, servers, async (variables) => {
    for (let file = files.shift(); file !== undefined; file = files.shift()) await runTests(file, [file], variables);
  });
}

try {
  await main();
} catch (error) {
  failed++;
  printError(error);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
