/**
 * Makes the gateway calls that payments wait for, outside of transactions, many side by side. Whoever claims a due row
 * calls: any instance, at any time. An outcome that is lost, or a process that dies, costs a lease; the call is then
 * made again with the same key.
 */
import { Counter, Histogram, type Registry as Metrics } from "prom-client";
import type { NewEvent } from "../../proto/envelope.ts";
import type { Outbox } from "../../relay/outbox/append.ts";
import type { HintSender } from "../../relay/outbox/hint.ts";
import { fullJitterMs, sleep } from "../kit/backoff.ts";
import type { Database } from "../kit/database.ts";
import { isDataError } from "../kit/database-errors.ts";
import { createGroupCommit } from "../kit/group-commit.ts";
import { createCountGauge } from "../kit/health.ts";
import type { Logger } from "../kit/log.ts";
import { type GatewayCall, type GatewayOutcome, nextCall } from "./domain.ts";
import type { GatewayAnswer, GatewayClient } from "./gateway-client.ts";
import { apply, eventsOf, type GatewayCalls, writesOf } from "./handlers.ts";
import { claimDuePayments, countPendingCalls, leaseMs, lockPayments, type Payment } from "./repository.ts";

export interface PaymentWorker extends GatewayCalls {
  /** Claims nothing more and records what the calls under way come to; gives up on those that take over 4 s. */
  close(): Promise<void>;
}

/** A call that was made, with what it came to. */
interface MadeCall {
  readonly call: GatewayCall;
  readonly answer: GatewayAnswer;
  /** When to ask again, if the outcome settles nothing. */
  readonly retryInMs: number;
}

/** For retries that are due, other instances' rows and lost wake-ups. */
const pollIntervalMs = 500;
/** Between tries of one call. */
const backoff = { baseMs: 100, maxMs: 5_000 };
const closeMaxMs = 4_000;

/** Starts claiming, and goes on until closed. A database or a gateway that is away is waited for. */
export function startPaymentWorker(options: {
  readonly database: Database;
  /** Its timeout has to be well below 5 s, the time for which a call is claimed. */
  readonly gateway: GatewayClient;
  readonly outbox: Outbox;
  readonly hints: HintSender;
  readonly newId: () => string;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Calls side by side. Default 32. A call that waits for its retry is not one of them. */
  readonly callsMax?: number;
}): PaymentWorker {
  const { database, gateway, outbox, hints, newId, log, metrics, callsMax = 32 } = options;
  const calls = new Counter({
    name: "payment_gateway_calls_total",
    help: "Calls by what they came to: authorized, declined, voided, void_confirmed, void_refused, unknown, throttled, fault.",
    labelNames: ["call", "outcome"],
    registers: [metrics],
  });
  const duration = new Histogram({
    name: "payment_gateway_call_seconds",
    help: "From the request to the end of the answer, or the time-out.",
    labelNames: ["call"],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3],
    registers: [metrics],
  });
  const refused = new Counter({
    name: "payment_voids_refused_total",
    help: "Payments that became VOID_REFUSED: money may be held for an order that has failed. Each wants a look.",
    registers: [metrics],
  });
  createCountGauge({
    name: "payment_gateway_calls_pending",
    help: "Payments that wait for a gateway call, by status; any VOID_REFUSED is an alert. Read from the database, so each instance shows all: take the max, not the sum.",
    label: "status",
    values: ["AUTHORIZING", "VOIDING", "VOID_REFUSED"],
    count: () => countPendingCalls(database),
    log,
    metrics,
  });
  const failures = new Counter({
    name: "payment_worker_failures_total",
    help: "Transactions that failed and are tried again: claiming due calls, recording outcomes.",
    labelNames: ["step"],
    registers: [metrics],
  });

  let closing = false;
  let calling = 0;
  const free = () => Math.max(0, callsMax - calling);
  let bell = new AbortController();
  const underWay = new Set<Promise<void>>();

  const recorder = createGroupCommit<MadeCall, undefined>({
    sizeMax: 500,
    waitingMax: 10_000,
    async commit(made) {
      try {
        await recordOutcomes(made);
      } catch (error) {
        failures.inc({ step: "record" });
        log.error({ err: error, calls: made.length }, "gateway outcomes were not recorded");
        throw error;
      }
      return made.map(() => undefined);
    },
    isOutage: (error) => !isDataError(error),
  });

  async function recordOutcomes(made: readonly MadeCall[]): Promise<void> {
    let publish: NewEvent[] = [];
    let refusals = 0;
    await database.transaction(async (transaction) => {
      publish = [];
      refusals = 0;
      const orderIds = [...new Set(made.map(({ call }) => call.orderId))];
      const { payments: before, now } = await lockPayments(transaction, orderIds);
      const after = new Map(before);
      for (const { call, answer, retryInMs } of made) {
        const payment = after.get(call.orderId);
        // What the call was made for may be settled by now, by another instance or a cancel.
        if (payment?.pending === undefined) continue;
        const { changed, facts } = apply(payment, answer.outcome, payment.pending.cause, now);
        if (changed.pending !== undefined && settlesNothing(answer.outcome) && isPending(call, changed)) {
          const dueAt = new Date(now.getTime() + retryInMs);
          after.set(call.orderId, { ...changed, pending: { ...changed.pending, dueAt } });
        } else if (facts.length > 0) {
          after.set(call.orderId, changed);
        }
        publish.push(...eventsOf(call.orderId, facts, payment.pending.cause, newId));
        if (payment.state.status !== "VOID_REFUSED" && changed.state.status === "VOID_REFUSED") refusals++;
      }
      await transaction.commit([...writesOf(before, after), ...outbox.statements(publish)]);
    });
    refused.inc(refusals);
    if (publish.length > 0) hints.send();
    logBatch(log, made, publish.length);
  }

  async function carryOut(call: GatewayCall, attempts: number): Promise<void> {
    const startedMs = performance.now();
    const answer = await gateway(call);
    const endedMs = performance.now();
    duration.observe({ call: call.kind }, (endedMs - startedMs) / 1_000);
    calls.inc({ call: call.kind, outcome: labelOf(answer) });
    // The slot is for the gateway; recording has its own queue.
    if (calling-- === callsMax) bell.abort();
    const retryInMs = (answer.retryAfterMs ?? 0) + fullJitterMs(attempts - 1, backoff);
    for (let attempt = 0; ; attempt++) {
      try {
        await recorder.submit({ call, answer, retryInMs });
        return;
      } catch (error) {
        // Once the lease is over, the call is due again, and its key gets the same answer.
        if (closing || isDataError(error) || performance.now() - startedMs > leaseMs) return;
        await sleep(fullJitterMs(attempt, { baseMs: 50, maxMs: 1_000 }));
      }
    }
  }

  function start({ state, pending }: Payment): void {
    const call = nextCall(state);
    if (call === undefined) return;
    calling++;
    const made = carryOut(call, pending?.attempts ?? 1).finally(() => underWay.delete(made));
    underWay.add(made);
  }

  async function run(): Promise<void> {
    let failed = 0;
    while (!closing) {
      // Replaced before looking, so that whoever rings while we look is heard.
      bell = new AbortController();
      const limit = free();
      try {
        const claimed = limit === 0 ? [] : await claimDuePayments(database, { limit });
        for (const payment of claimed) start(payment);
        failed = 0;
        // A full load: there may be more, as soon as a slot is free.
        if (limit > 0 && claimed.length === limit && calling < callsMax) continue;
      } catch (error) {
        failures.inc({ step: "claim" });
        log.error({ err: error }, "due gateway calls were not claimed");
        await sleep(fullJitterMs(failed++, { baseMs: 50, maxMs: 1_000 }));
        continue;
      }
      await sleep(pollIntervalMs, bell.signal);
    }
  }
  const running = run();

  return {
    free: () => (closing ? 0 : free()),
    // Claimed while the worker was being closed: whoever looks once the lease is over makes the call.
    start: (claimed) => {
      if (!closing) claimed.forEach(start);
    },
    wake: () => bell.abort(),
    async close() {
      closing = true;
      bell.abort();
      const deadline = new AbortController();
      const done = (async () => {
        await running;
        await Promise.all(underWay);
        await recorder.close();
      })();
      await Promise.race([done, sleep(closeMaxMs, deadline.signal)]);
      deadline.abort();
    },
  };
}

/** The call has to be made again. */
function settlesNothing({ $typeName }: GatewayOutcome): boolean {
  return $typeName === "GatewayUnknown" || $typeName === "GatewayVoidRefused";
}

function isPending(call: GatewayCall, payment: Payment): boolean {
  return nextCall(payment.state)?.idempotencyKey === call.idempotencyKey;
}

const labels: Readonly<Record<GatewayOutcome["$typeName"], string>> = {
  GatewayAuthorized: "authorized",
  GatewayDeclined: "declined",
  GatewayVoided: "voided",
  GatewayVoidConfirmed: "void_confirmed",
  GatewayVoidRefused: "void_refused",
  GatewayUnknown: "unknown",
};

function labelOf(answer: GatewayAnswer): string {
  if (answer.fault !== undefined && answer.outcome.$typeName === "GatewayUnknown") return "fault";
  return answer.retryAfterMs === undefined ? labels[answer.outcome.$typeName] : "throttled";
}

function logBatch(log: Logger, made: readonly MadeCall[], published: number): void {
  const outcomes: Record<string, number> = {};
  for (const { answer } of made) outcomes[labelOf(answer)] = (outcomes[labelOf(answer)] ?? 0) + 1;
  const entry = { calls: made.length, outcomes, published };
  const faulty = made.find(({ answer }) => answer.fault !== undefined);
  if (faulty === undefined) log.info(entry, "gateway outcomes");
  else
    log.error({ ...entry, orderId: faulty.call.orderId, fault: faulty.answer.fault }, "the gateway refuses our calls");
}
