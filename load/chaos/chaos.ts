/** Faults under load, one after the other; afterwards everything must have come to its end, and add up. */

import { sleep } from "../../services/kit/backoff.ts";
import { messageOf } from "../../services/kit/errors.ts";
import { type AuditReport, audit } from "../../services/ops/audit/audit.ts";
import { findStuck } from "../../services/ops/stuck/stuck.ts";
import { say } from "../../services/stack/console.ts";
import { deadLetterTopic } from "../../services/stack/provision.ts";
import type { StackSettings } from "../../services/stack/settings.ts";
import { createRandom, type Random } from "../model/random.ts";
import { type FaultKind, faultKinds } from "./faults.ts";
import { type ChaosStack, consumers, startChaosStack } from "./stack.ts";
import { type OrderTraffic, startTraffic } from "./traffic.ts";

export interface ChaosOptions {
  /** Ports, and the folder that is emptied first. */
  readonly settings: StackSettings;
  /** Faults are started until so much time is over, and until each kind was there once. */
  readonly durationMs: number;
  readonly ratePerSecond: number;
  /** Draws the faults, their order and what they hit, and the orders. */
  readonly seed: number;
  /** Only kinds whose names contain one of these; all where there is none. */
  readonly only?: readonly string[];
  /** Starts no further fault, and comes to the end. */
  readonly signal?: AbortSignal;
}

/** One fault that was done. */
export interface FaultRecord {
  readonly kind: string;
  readonly target: string;
  readonly tookMs: number;
  /** From its end until an order that was placed then was COMPLETED or FAILED. */
  readonly recoveredMs: number;
  readonly witnesses: readonly string[];
  /** What was missing each time before, when it was repeated. */
  readonly misses: readonly string[];
  readonly skipped: string | undefined;
}

export interface ChaosResult {
  readonly seed: number;
  readonly faults: readonly FaultRecord[];
  /** `COMPLETED`, or `FAILED/OUT_OF_STOCK` and so on. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly acknowledged: number;
  /** Requests that were answered with errors only, and how many of them are orders all the same. */
  readonly unacknowledged: number;
  readonly unacknowledgedPlaced: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly cancels: number;
  readonly watched: number;
  /** How often a service exited, to be started again, since its Kafka client had given up. */
  readonly consumersStopped: number;
  readonly audit: AuditReport | undefined;
  /** What is wrong; empty for a good run. */
  readonly wrongs: readonly string[];
}

const attemptsMax = 3;
const recoveryMaxMs = 60_000;
const stepMaxMs = 120_000;
const endMaxMs = 180_000;
const watchersMaxMs = 30_000;
const pollMs = 100;
/** At the end everything has been handled, so that what is not done is not going to be. */
const overdueAfterMs = 1_000;

/** Runs the whole of it. @throws Error when the system could not even be started. */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const stack = await startChaosStack(options.settings);
  try {
    return await run(stack, options);
  } finally {
    await stack.stop();
  }
}

async function run(stack: ChaosStack, options: ChaosOptions): Promise<ChaosResult> {
  const { seed, ratePerSecond } = options;
  // Orders are drawn in an order that hangs on time: they must not disturb which faults the seed draws.
  const traffic = startTraffic({ orderUrl: stack.orderUrl, ratePerSecond, random: createRandom(seed + 1) });
  const faults: FaultRecord[] = [];
  const wrongs: string[] = [];
  const deadlineMs = performance.now() + options.durationMs;
  for await (const { kind, target, random } of planFaults(
    seed,
    options.only ?? [],
    () => performance.now() < deadlineMs,
  )) {
    if (options.signal?.aborted) break;
    try {
      const fault = await strike(stack, traffic, random, kind, target);
      faults.push(fault);
      if (fault.skipped !== undefined) say(`${kind.name}: skipped, ${fault.skipped}`);
      else if (fault.witnesses.length > 0) say(`${kind.name} of ${target}: ${fault.witnesses.join("; ")}`);
      else wrongs.push(`${kind.name} of ${target} has no witness: ${fault.misses.join("; ")}`);
    } catch (error) {
      // Whatever it broke stays broken: no further fault could be judged.
      wrongs.push(`${kind.name} of ${target}: ${messageOf(error)}`);
      break;
    }
  }
  say("No more faults: waiting until every order is final …");
  await traffic.stop();
  const settled = await settle(stack);
  await traffic.untilWatched(watchersMaxMs);
  const report = await audit({ ...stack.sources, acknowledged: traffic.acknowledged(), overdueAfterMs });
  return {
    seed,
    faults,
    outcomes: await countOutcomes(stack),
    acknowledged: traffic.acknowledged().length,
    unacknowledged: traffic.unacknowledged().length,
    unacknowledgedPlaced: await countPlaced(stack, traffic.unacknowledged()),
    errors: traffic.errors(),
    cancels: traffic.cancels(),
    watched: traffic.watched(),
    consumersStopped: stack.consumersStopped(),
    audit: report,
    wrongs: counted([
      ...wrongs,
      ...settled,
      ...traffic.wrongs(),
      ...stack.surprises(),
      ...(await auditWrongs(stack, report)),
    ]),
  };
}

/** Each once, with how often it is there. */
function counted(lines: readonly string[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const line of lines) counts.set(line, (counts.get(line) ?? 0) + 1);
  return Array.from(counts, ([line, count]) => (count === 1 ? line : `${line} (${count} times)`));
}

interface PlannedFault {
  readonly kind: FaultKind;
  readonly target: string;
  readonly random: Random;
}

/**
 * Every kind once, in an order that the seed draws; then again in another one, with other targets, while `goesOn`. Each
 * fault draws from chance of its own, so that the plan does not hang on how many numbers an earlier one took.
 */
export function* planFaults(seed: number, only: readonly string[], goesOn: () => boolean): Generator<PlannedFault> {
  const random = createRandom(seed);
  const kinds = faultKinds.filter(({ name }) => only.length === 0 || only.some((word) => name.includes(word)));
  const left = new Map<FaultKind, string[]>();
  for (let pass = 1; pass === 1 || goesOn(); pass++) {
    for (const kind of shuffled(kinds, random)) {
      if (pass > 1 && !goesOn()) return;
      // Every target gets its turn before any gets its second.
      const targets = left.get(kind) ?? [];
      if (targets.length === 0) targets.push(...shuffled(kind.targets, random));
      left.set(kind, targets);
      const target = targets.pop();
      if (target === undefined) throw new Error(`${kind.name} has no target.`);
      yield { kind, target, random: createRandom(random.below(2 ** 31)) };
    }
  }
}

function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  const rest = [...items];
  return Array.from(items, () => rest.splice(random.below(rest.length), 1)).flat();
}

/** Repeats a fault that hit nothing, and waits after each until the system works again. */
async function strike(
  stack: ChaosStack,
  traffic: OrderTraffic,
  random: Random,
  kind: FaultKind,
  target: string,
): Promise<FaultRecord> {
  const misses: string[] = [];
  for (;;) {
    const startedMs = performance.now();
    const outcome = await within(stepMaxMs, "to strike", kind.strike({ stack, random }, target));
    const endedMs = performance.now();
    await within(stepMaxMs, "until all were ready again", stack.untilReady());
    const recoveredMs = await within(stepMaxMs, "until an order got through", probe(stack, traffic, endedMs));
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

/** Nothing may wait for ever: a step that hangs is told by its name. */
async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  const expired = Promise.withResolvers<never>();
  const timer = setTimeout(() => expired.reject(new Error(`it took longer than ${ms / 1_000} s ${what}`)), ms);
  try {
    return await Promise.race([work, expired.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** An order goes through the whole system. */
async function probe(stack: ChaosStack, traffic: OrderTraffic, sinceMs: number): Promise<number> {
  const orderId = await traffic.place("pm_ok");
  const deadlineMs = performance.now() + recoveryMaxMs;
  for (;;) {
    const rows = await stack.sources.databases.order.query(
      "SELECT order_id FROM orders WHERE order_id = ? AND status IN ('COMPLETED', 'FAILED')",
      [orderId],
    );
    if (rows.length > 0) return performance.now() - sinceMs;
    if (performance.now() > deadlineMs) throw new Error(`afterwards an order was not final within ${recoveryMaxMs} ms`);
    await sleep(pollMs);
  }
}

/** Waits until every order is final, the outboxes are empty and the consumers are at the end. What is not, is wrong. */
async function settle(stack: ChaosStack): Promise<readonly string[]> {
  const deadlineMs = performance.now() + endMaxMs;
  for (;;) {
    const undone = await findUndone(stack);
    if (undone.length === 0 || performance.now() > deadlineMs) return undone;
    await sleep(pollMs);
  }
}

async function findUndone({ sources, admin }: ChaosStack): Promise<readonly string[]> {
  const { databases, topic } = sources;
  const { total, orders } = await findStuck(databases, { olderThanMs: 0, limit: 5 });
  const undone = total === 0 ? [] : [`${total} orders are not final: ${JSON.stringify(orders)}`];
  for (const service of consumers) {
    const [row] = await databases[service].query<{ n: number }>(
      `SELECT COUNT(*) AS n FROM ${service}_outbox_event WHERE status <> 'PUBLISHED'`,
    );
    if (Number(row?.n) > 0) undone.push(`${row?.n} events of ${service} are not published`);
    const committed = new Map((await admin.committedOffsets(service, topic)).map((it) => [it.partition, it.offset]));
    const behind = (await admin.endOffsets(topic)).filter(
      ({ partition, offset }) => offset !== "0" && committed.get(partition) !== offset,
    );
    if (behind.length > 0) undone.push(`${service} has not read ${behind.length} partitions to their ends`);
  }
  return undone;
}

async function auditWrongs({ sources, admin }: ChaosStack, report: AuditReport): Promise<readonly string[]> {
  const wrongs = report.promises
    .filter(({ broken }) => broken > 0)
    .map(({ promise, title, broken, findings }) => {
      const [first] = findings;
      return `${promise} (${title}) is broken ${broken} times; first ${first?.subject}: ${first?.what}`;
    });
  if (report.hinderedCount > 0) {
    wrongs.push(`${report.hinderedCount} orders wait for an operator: ${report.hindered[0]?.why}`);
  }
  if (report.unsettledCount > 0) wrongs.push(`${report.unsettledCount} orders do not stand still`);
  const deadLetters = (await admin.endOffsets(deadLetterTopic)).reduce((sum, { offset }) => sum + Number(offset), 0);
  if (deadLetters > 0) wrongs.push(`${deadLetters} dead letters, where no event was bad`);
  for (const service of consumers) {
    const [row] = await sources.databases[service].query<{ n: number }>(
      `SELECT COUNT(*) AS n FROM ${service}_outbox_event WHERE retry_count > 0`,
    );
    if (Number(row?.n) > 0) wrongs.push(`outages were counted against ${row?.n} events of ${service}`);
  }
  return wrongs;
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
