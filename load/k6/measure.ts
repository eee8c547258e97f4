import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sleep } from "../../services/kit/backoff.ts";
import { environment } from "../../services/kit/config.ts";
import { openDatabase, type Queryable } from "../../services/kit/database.ts";
import { StackError } from "../../services/stack/errors.ts";
import { readStackFile, type StackFile } from "../../services/stack/stack-file.ts";
import { cpuSecondsBetween, readMachineBusySeconds, readProcessTimes } from "./cpu.ts";
import type { LoadPlan, LoadSummary } from "./plan.ts";
import { type LoadResult, quantilesOf } from "./result.ts";

export interface LoadOptions {
  readonly ratePerSecond: number;
  readonly seconds: number;
  readonly watchShare: number;
  readonly dataFolder: string;
  readonly k6Program: string;
  /** Aborting it stops k6 and makes {@link measure} throw. */
  readonly signal: AbortSignal;
  readonly report: (line: string) => void;
}

const declinedShare = 0.05;
const outOfStockShare = 0.05;
/** Virtual users per order a second. No iteration is dropped as long as answers take 1 s and final statuses 5 s. */
const placingUsersPerRate = 1;
const watchingUsersPerRate = 5;
/** Few, so that at a low rate no user is idle for ten seconds, after which Order closes its connection. */
const usersMin = 5;
const placingUsersMax = 1_500;
const watchingUsersMax = 500;
const watchTimeoutSeconds = 30;
/** From here on Go collects garbage more often. A user takes half a megabyte, and k6 keeps every measured time. */
const k6MemoryLimit = "1500MiB";
const finalWaitMaxMs = 120_000;
const finalPollMs = 250;
const progressIntervalMs = 10_000;
const statementTimeoutMs = 30_000;
/** k6 ran to its end, and a threshold was crossed. The report shows which. */
const thresholdsCrossed = 99;
const k6ErrorLinesMax = 10;

/**
 * Runs the scenario once against the running stack, waits until its orders are final, and counts.
 * @throws StackError if no stack runs or k6 fails.
 */
export async function measure(options: LoadOptions): Promise<LoadResult> {
  const stack = await readRunningStack(options.dataFolder);
  const database = openDatabase({ url: stack.databases.order, connectionsMax: 1, statementTimeoutMs });
  const folder = await mkdtemp(join(tmpdir(), "order-saga-load-"));
  const plan = planOf(options, stack, join(folder, "summary.json"));
  try {
    const startedAtMs = performance.now();
    const timesBefore = await readProcessTimes(stack.processes);
    const machineBefore = await readMachineBusySeconds();
    const reporting = new AbortController();
    const reports = reportProgress(options, database, plan.run, reporting.signal);
    let k6CpuSeconds: number;
    try {
      k6CpuSeconds = await runK6(options, plan);
      await untilAllFinal(options, database, plan.run);
    } finally {
      reporting.abort();
      await reports;
    }
    // Reads the stack file again, since a restarted process has another PID.
    const timesAfter = await readProcessTimes((await readStackFile(options.dataFolder)).processes);
    const machineCpuSeconds = (await readMachineBusySeconds()) - machineBefore;
    const wallSeconds = (performance.now() - startedAtMs) / 1_000;
    const client: LoadSummary = JSON.parse(await readFile(plan.summaryFile, "utf8"));
    const orders = await readOrders(database, plan.run);
    return {
      run: plan.run,
      ratePerSecond: options.ratePerSecond,
      seconds: options.seconds,
      ...orders,
      // A lower bound: a request that got an error may have placed its order. The run has problems anyway then.
      lost: Math.max(0, client.acknowledged - orders.placed),
      client,
      cpuSeconds: { ...cpuSecondsBetween(timesBefore, timesAfter), k6: k6CpuSeconds },
      machineCpuSeconds,
      wallSeconds,
    };
  } finally {
    await Promise.all([database.close(), rm(folder, { recursive: true, force: true })]);
  }
}

/**
 * Reads what runs on the data folder. Calls Order too, since a stack that was killed leaves its file behind.
 * @throws StackError if no stack runs.
 */
export async function readRunningStack(dataFolder: string): Promise<StackFile> {
  const missing = (error: unknown) => {
    throw new StackError(`No stack runs on ${dataFolder}. Run npm start first, and leave it running.`, {
      cause: error,
    });
  };
  const stack = await readStackFile(dataFolder).catch(missing);
  await fetch(stack.order.http, { signal: AbortSignal.timeout(5_000) }).catch(missing);
  return stack;
}

function planOf(options: LoadOptions, stack: StackFile, summaryFile: string): LoadPlan {
  const instances = Object.entries(stack).flatMap(([name, value]) => (/^order(-\d+)?$/.test(name) ? [value] : []));
  const { ratePerSecond, watchShare } = options;
  const users = (wanted: number, max: number) => Math.min(max, Math.max(usersMin, Math.ceil(wanted)));
  return {
    run: randomBytes(4).toString("hex"),
    httpUrls: instances.map(({ http }) => http),
    grpcAddresses: instances.map(({ grpc }) => new URL(grpc).host),
    ratePerSecond,
    seconds: options.seconds,
    watchShare,
    declinedShare,
    outOfStockShare,
    placingUsers: users(ratePerSecond * placingUsersPerRate, placingUsersMax),
    watchingUsers: users(ratePerSecond * watchShare * watchingUsersPerRate, watchingUsersMax),
    watchTimeoutSeconds,
    summaryFile,
  };
}

/** Runs k6 to its end and returns the CPU seconds that it used. */
async function runK6(options: LoadOptions, plan: LoadPlan): Promise<number> {
  const command = [options.k6Program, "run", "--quiet", "--no-color", "--address", "", "--log-output", "stderr"];
  const child = Bun.spawn([...command, join(import.meta.dir, "scenario.ts")], {
    env: {
      ...environment(),
      LOAD_PLAN: JSON.stringify(plan),
      GOMEMLIMIT: k6MemoryLimit,
      // k6 must use no network but the stack's.
      K6_NO_USAGE_REPORT: "true",
      K6_AUTO_EXTENSION_RESOLUTION: "false",
    },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const stop = () => child.kill("SIGTERM");
  options.signal.addEventListener("abort", stop);
  try {
    const [log, exitCode] = await Promise.all([new Response(child.stderr).text(), child.exited]);
    options.signal.throwIfAborted();
    if (exitCode !== 0 && exitCode !== thresholdsCrossed) {
      throw new StackError(`k6 ended with exit code ${exitCode}:${errorsOf(log)}`);
    }
    if (exitCode === thresholdsCrossed) options.report(`k6 says:${errorsOf(log)}`);
    return Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1_000_000;
  } finally {
    options.signal.removeEventListener("abort", stop);
  }
}

/** The first distinct errors in k6's log. Leaves out its warnings, one per failed request: the script reports those itself. */
function errorsOf(log: string): string {
  const errors = log.split("\n").filter((line) => line !== "" && !line.includes(" level=warning "));
  const messages = new Set(errors.map((line) => line.replace(/^time=\S+ level=\w+ msg=/, "")));
  return [...messages]
    .slice(0, k6ErrorLinesMax)
    .map((message) => `\n  ${message}`)
    .join("");
}

async function reportProgress(
  options: LoadOptions,
  database: Queryable,
  run: string,
  signal: AbortSignal,
): Promise<void> {
  for (let seconds = 0; ; seconds += progressIntervalMs / 1_000) {
    await sleep(progressIntervalMs, signal);
    if (signal.aborted) return;
    // A failure of this query does not matter: the run is judged by its end.
    const counts = await countOrders(database, run).catch(() => undefined);
    const progress =
      counts === undefined ? "the database does not answer" : `${counts.placed} placed, ${counts.notFinal} not final`;
    options.report(`after ${seconds + progressIntervalMs / 1_000} s: ${progress}`);
  }
}

async function untilAllFinal(options: LoadOptions, database: Queryable, run: string): Promise<void> {
  const deadlineMs = performance.now() + finalWaitMaxMs;
  while (performance.now() < deadlineMs) {
    const counts = await countOrders(database, run).catch(() => undefined);
    if (counts?.notFinal === 0) return;
    await sleep(finalPollMs, options.signal);
    options.signal.throwIfAborted();
  }
}

/** Selects the run's orders by the first digits of their request ids, with the index over owner and request id. */
const ofRun = "FROM orders WHERE owner = '' AND request_id LIKE CONCAT(?, '-%')";

async function countOrders(
  database: Queryable,
  run: string,
): Promise<{ readonly placed: number; readonly notFinal: number }> {
  const [row] = await database.query<{ placed: number; final: number }>(
    `SELECT COUNT(*) AS placed, COUNT(CASE WHEN status IN ('COMPLETED', 'FAILED') THEN 1 END) AS final ${ofRun}`,
    [run],
  );
  if (row === undefined) throw new Error("COUNT gave no row.");
  return { placed: row.placed, notFinal: row.placed - row.final };
}

async function readOrders(
  database: Queryable,
  run: string,
): Promise<Pick<LoadResult, "placed" | "completed" | "failed" | "notFinal" | "finalMs">> {
  const rows = await database.query<{ status: string; failure_reason: string | null; ms: number | string }>(
    `SELECT status, failure_reason, TIMESTAMPDIFF(MICROSECOND, created_at, updated_at) DIV 1000 AS ms ${ofRun}`,
    [run],
  );
  const failed: Record<string, number> = {};
  const finalMs: number[] = [];
  let completed = 0;
  for (const { status, failure_reason, ms } of rows) {
    if (status === "COMPLETED") completed++;
    else if (status === "FAILED") failed[failure_reason ?? "?"] = (failed[failure_reason ?? "?"] ?? 0) + 1;
    else continue;
    finalMs.push(Number(ms));
  }
  return {
    placed: rows.length,
    completed,
    failed,
    notFinal: rows.length - finalMs.length,
    finalMs: quantilesOf(finalMs),
  };
}
