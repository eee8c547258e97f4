/**
 * `npm test`: every test, from nothing. Each file of integration or end-to-end tests runs in a process of its own, two
 * files at a time: most of them wait for something most of the time. Each of the two lanes has its own ports and data, a
 * MariaDB and a Kafka for integration tests, and stacks for the others; all of it beside a running `npm start`.
 * Arguments name parts of file paths: `npm test -- relay`, `npm test -- .unit.`.
 * With `--mysql`, the integration tests alone, on MySQL instead of MariaDB: `npm run test:mysql`.
 */
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { say } from "../console.ts";
import { explained, StackError } from "../errors.ts";
import { ensurePrograms } from "../servers/downloads.ts";
import { ensureMysql } from "../servers/mysql.ts";
import { lockEmptied } from "../servers/servers.ts";
import { readStackSettings } from "../settings.ts";
import { type TestServerOptions, testEnvironment, testPortOffset, withTestServers } from "./test-servers.ts";

const root = join(import.meta.dir, "../../..");
const dataFolder = join(root, ".data/test");
const mysqlFlag = "--mysql";
/** More are no faster on two cores. */
const lanesMax = 2;
/** Between two lanes' ports. Chaos' are 2,000 above its lane's, and by default all of them below those of clients. */
const lanePortStep = 1_000;
/** A test that hangs is a failure, not the end of all. */
const testTimeoutMs = 60_000;

let passed = 0;
let failed = 0;

/** Runs test files in one process of Bun's, adds up their results, and shows what it printed when it has ended. */
async function runTests(name: string, files: readonly string[], extra: Readonly<Record<string, string>> = {}) {
  const startedMs = performance.now();
  const report = join(dataFolder, `${name.replaceAll("/", "-")}.xml`);
  await rm(report, { force: true });
  // A file, and no pipe: a process that such a test has left behind would hold that open.
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
  // An error outside of any test fails the run, but is in no test's count.
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
  // What takes long comes first: end-to-end tests, and of the others the relay's before those under load/.
  const endToEnd = ofKind("e2e");
  const integration = ofKind("int").reverse();
  const lanes = Math.min(lanesMax, endToEnd.length + integration.length);
  if (lanes === 0) return;
  // Once for all lanes.
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

/** Takes files from the list, one after the other, until there are none. */
async function runEndToEnd(files: string[], stackFolder: string, portOffset: number): Promise<void> {
  if (files.length === 0) return;
  await (await lockEmptied(stackFolder)).release();
  for (let file = files.shift(); file !== undefined; file = files.shift()) {
    await runTests(file, [file], { STACK_DATA_DIR: stackFolder, STACK_PORT_OFFSET: String(portOffset) });
  }
}

/** The same for those that need only servers. */
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
  const shown = explained(error);
  console.error(shown instanceof StackError ? shown.message : shown);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
