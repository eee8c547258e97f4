/** Injects faults one after the other while orders arrive; then every order must end and the audit must find nothing. */
import { sleep } from "../../services/kit/backoff.ts";
import { withDeadline } from "../../services/kit/deadline.ts";
import { messageOf } from "../../services/kit/errors.ts";
import { audit } from "../../services/ops/audit/audit.ts";
import type { AuditReport } from "../../services/ops/audit/report.ts";
import { say } from "../../services/stack/console.ts";
import { type Instances, oneInstanceEach, type StackSettings } from "../../services/stack/settings.ts";
import { createRandom } from "../model/random.ts";
import { faultKindsOf } from "./faults/all.ts";
import { type PlannedFault, planFaults } from "./plan.ts";
import { type ChaosStack, startChaosStack } from "./stack.ts";
import { type OrderTraffic, startTraffic } from "./traffic.ts";
import { findBroken, untilFinished } from "./verdict.ts";

export interface ChaosOptions {
  /** Ports and data folder of the stack. The folder is emptied first. */
  readonly settings: StackSettings;
  /** How many of each process run. Default: one. */
  readonly instances?: Instances;
  /** Faults are injected until this time has passed and each kind was injected once. */
  readonly durationMs: number;
  readonly ratePerSecond: number;
  /** Determines the faults, their order and targets, and what is ordered. */
  readonly seed: number;
  /** Only kinds whose names contain one of these words; all kinds by default. */
  readonly only?: readonly string[];
  /** Aborting it injects no further fault; the run still ends with its checks. */
  readonly signal?: AbortSignal;
}

/** One injected fault. */
export interface FaultRecord {
  readonly kind: string;
  readonly target: string;
  readonly tookMs: number;
  /** From the end of the fault until an order that was placed after it was COMPLETED or FAILED. */
  readonly recoveredMs: number;
  readonly witnesses: readonly string[];
  /** What the evidence lacked at each attempt that was repeated. */
  readonly misses: readonly string[];
  readonly skipped: string | undefined;
}

export interface ChaosResult {
  readonly seed: number;
  readonly faults: readonly FaultRecord[];
  /** Orders by their final state: `COMPLETED`, `FAILED/OUT_OF_STOCK` and so on. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly acknowledged: number;
  /** Requests that got errors only, and how many of them placed an order nevertheless. */
  readonly unacknowledged: number;
  readonly unacknowledgedPlaced: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly cancels: number;
  readonly watched: number;
  /** How often a service exited, as designed, because its Kafka client does not restart by itself. */
  readonly consumerExits: number;
  readonly audit: AuditReport;
  /** Everything that is wrong; empty for a good run. */
  readonly problems: readonly string[];
}

const attemptsMax = 3;
const recoveryMaxMs = 60_000;
const stepMaxMs = 120_000;
const watchersMaxMs = 30_000;
const pollMs = 100;
/** At the end all work is done, so the audit need not give an unfinished order more time than this. */
const overdueAfterMs = 1_000;

/** Runs all of it on a stack of its own. @throws Error if the system cannot be started. */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const stack = await startChaosStack(options.settings, options.instances ?? oneInstanceEach);
  try {
    return await run(stack, options);
  } finally {
    await stack.stop();
  }
}

async function run(stack: ChaosStack, options: ChaosOptions): Promise<ChaosResult> {
  const { seed, ratePerSecond } = options;
  // The timing of the orders varies, so they get a generator of their own: the seed must always draw the same faults.
  const traffic = startTraffic({ orderUrls: stack.orderUrls, ratePerSecond, random: createRandom(seed + 1) });
  const { faults, problems } = await injectFaults(stack, traffic, options);
  say("No more faults. Waiting until every order is final …");
  await traffic.stop();
  const unfinished = await untilFinished(stack);
  await traffic.untilWatched(watchersMaxMs);
  const seen = traffic.observations;
  const report = await audit({ ...stack.sources, acknowledged: seen.acknowledged, overdueAfterMs });
  const { exits } = stack.processes;
  return {
    seed,
    faults,
    outcomes: await countOutcomes(stack),
    acknowledged: seen.acknowledged.length,
    unacknowledged: seen.unacknowledged.length,
    unacknowledgedPlaced: await countPlaced(stack, seen.unacknowledged),
    errors: seen.errors,
    cancels: seen.cancels,
    watched: seen.watched,
    consumerExits: exits.consumerExits(),
    audit: report,
    problems: withCounts([
      ...problems,
      ...unfinished,
      ...seen.problems,
      ...exits.unexplained(),
      ...(await findBroken(stack, report)),
    ]),
  };
}

async function injectFaults(
  stack: ChaosStack,
  traffic: OrderTraffic,
  { seed, durationMs, only = [], signal }: ChaosOptions,
): Promise<{ readonly faults: readonly FaultRecord[]; readonly problems: readonly string[] }> {
  const faults: FaultRecord[] = [];
  const problems: string[] = [];
  const deadlineMs = performance.now() + durationMs;
  const kinds = faultKindsOf(stack).filter(({ name }) => only.length === 0 || only.some((word) => name.includes(word)));
  for (const planned of planFaults(seed, kinds, () => performance.now() < deadlineMs)) {
    if (signal?.aborted) break;
    const name = `${planned.kind.name} of ${planned.target}`;
    try {
      const fault = await injectFault(stack, traffic, planned);
      faults.push(fault);
      if (fault.skipped !== undefined) say(`${planned.kind.name}: skipped, ${fault.skipped}`);
      else if (fault.witnesses.length > 0) say(`${name}: ${fault.witnesses.join("; ")}`);
      else problems.push(`${name} has no witness: ${fault.misses.join("; ")}`);
    } catch (error) {
      // What it broke stays broken, so a further fault would prove nothing.
      problems.push(`${name}: ${messageOf(error)}`);
      break;
    }
  }
  return { faults, problems };
}

/** Injects one fault, and repeats it if it hit nothing. After each attempt it waits until the system works again. */
async function injectFault(
  stack: ChaosStack,
  traffic: OrderTraffic,
  { kind, target, random }: PlannedFault,
): Promise<FaultRecord> {
  const misses: string[] = [];
  for (;;) {
    const startedMs = performance.now();
    const outcome = await withinStep("the fault", kind.strike({ stack, random }, target));
    const endedMs = performance.now();
    await withinStep("the recovery of all processes", stack.processes.untilReady());
    await withinStep("the recovery of all replicas", stack.untilInSync());
    const recoveredMs = await withinStep("an order after the fault", probe(stack, traffic, endedMs));
    if (outcome.kind === "missed") {
      say(`${kind.name} of ${target} hit nothing: ${outcome.why}`);
      misses.push(outcome.why);
      if (misses.length < attemptsMax) continue;
    }
    return {
      kind: kind.name,
      target,
      tookMs: endedMs - startedMs,
      recoveredMs,
      witnesses: outcome.kind === "hit" ? outcome.witnesses : [],
      misses,
      skipped: outcome.kind === "skipped" ? outcome.why : undefined,
    };
  }
}

/** A step that hangs fails with its name. */
function withinStep<T>(step: string, work: Promise<T>): Promise<T> {
  return withDeadline(work, stepMaxMs, () => new Error(`${step} took longer than ${stepMaxMs / 1_000} s`));
}

/** Places an order and waits until it is final; returns the time since `sinceMs`. */
async function probe(stack: ChaosStack, traffic: OrderTraffic, sinceMs: number): Promise<number> {
  const orderId = await traffic.place("pm_ok");
  const deadlineMs = performance.now() + recoveryMaxMs;
  for (;;) {
    const rows = await stack.sources.databases.order.query(
      "SELECT order_id FROM orders WHERE order_id = ? AND status IN ('COMPLETED', 'FAILED')",
      [orderId],
    );
    if (rows.length > 0) return performance.now() - sinceMs;
    if (performance.now() > deadlineMs)
      throw new Error(`an order placed after the fault was not final within ${recoveryMaxMs} ms`);
    await sleep(pollMs);
  }
}

/** Each different line once, with how often it occurred. */
function withCounts(lines: readonly string[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const line of lines) counts.set(line, (counts.get(line) ?? 0) + 1);
  return Array.from(counts, ([line, count]) => (count === 1 ? line : `${line} (${count} times)`));
}

async function countOutcomes({ sources }: ChaosStack): Promise<Readonly<Record<string, number>>> {
  const rows = await sources.databases.order.query<{ outcome: string; n: number }>(
    "SELECT CONCAT_WS('/', status, failure_reason) AS outcome, COUNT(*) AS n FROM orders GROUP BY 1 ORDER BY 1",
  );
  return Object.fromEntries(rows.map(({ outcome, n }) => [outcome, Number(n)]));
}

async function countPlaced({ sources }: ChaosStack, requestIds: readonly string[]): Promise<number> {
  if (requestIds.length === 0) return 0;
  const [row] = await sources.databases.order.query<{ n: number }>(
    "SELECT COUNT(*) AS n FROM orders WHERE request_id IN (?)",
    [requestIds],
  );
  return Number(row?.n ?? 0);
}
