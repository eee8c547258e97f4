/** Metrics of the calls to the payment gateway. */
import { Counter, Gauge, Histogram, type Registry as Metrics } from "prom-client";
import type { Queryable } from "../kit/database.ts";
import { createCountGauge } from "../kit/health.ts";
import type { Logger } from "../kit/log.ts";
import type { GatewayCall, GatewayOutcome } from "./domain.ts";
import type { GatewayAnswer } from "./gateway-client.ts";
import { countPendingCalls, pendingStatuses } from "./repository.ts";

export interface PaymentMetrics {
  called(call: GatewayCall, answer: GatewayAnswer, seconds: number): void;
  /** Payments that became VOID_REFUSED. */
  voidsRefused(count: number): void;
  /** A transaction of the worker failed and will be retried. */
  failed(step: "claim" | "record"): void;
  /** Payments that the worker skipped because this version cannot read them. */
  unreadable(step: "claim" | "record", count: number): void;
  /** The time for which the gateway's calls are paused, as of the last answer; 0 if they are not. */
  paused(ms: number): void;
}

/** Registers the metrics. Call it once per process. */
export function createPaymentMetrics(options: {
  readonly database: Queryable;
  readonly log: Logger;
  readonly metrics: Metrics;
}): PaymentMetrics {
  const registers = [options.metrics];
  const calls = new Counter({
    name: "payment_gateway_calls_total",
    help: "Calls by outcome: authorized, declined, voided, void_confirmed, void_refused, unknown, throttled, fault.",
    labelNames: ["call", "outcome"],
    registers,
  });
  const duration = new Histogram({
    name: "payment_gateway_call_seconds",
    help: "Time from the request to the end of the answer or the timeout.",
    labelNames: ["call"],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3],
    registers,
  });
  const refused = new Counter({
    name: "payment_voids_refused_total",
    help: "Payments that became VOID_REFUSED: money may be held for a failed order. An operator must look at each.",
    registers,
  });
  const failures = new Counter({
    name: "payment_worker_failures_total",
    help: "Transactions that failed and are retried, by step: claim (due calls) or record (outcomes).",
    labelNames: ["step"],
    registers,
  });
  const unreadable = new Counter({
    name: "payment_unreadable_rows_total",
    help: "Payments that the worker skipped because this version cannot read them, by step: claim (due calls) or record (outcomes).",
    labelNames: ["step"],
    registers,
  });
  const pause = new Gauge({
    name: "payment_gateway_pause_seconds",
    help: "How long the gateway has asked this process to make no call (429), as of its last answer; 0 if it has not.",
    registers,
  });
  createCountGauge({
    name: "payment_gateway_calls_pending",
    help: "Payments that wait for a gateway call, by status; UNKNOWN for a status of another version. Alert on any VOID_REFUSED or UNKNOWN. Read from the database, so every instance reports all of them: use max, not sum.",
    label: "status",
    values: [...pendingStatuses, "UNKNOWN"],
    count: () => countPendingCalls(options.database),
    log: options.log,
    metrics: options.metrics,
  });

  return {
    called(call, answer, seconds) {
      duration.observe({ call: call.kind }, seconds);
      calls.inc({ call: call.kind, outcome: outcomeLabel(answer) });
    },
    voidsRefused: (count) => refused.inc(count),
    failed: (step) => failures.inc({ step }),
    unreadable: (step, count) => unreadable.inc({ step }, count),
    paused: (ms) => pause.set(ms / 1_000),
  };
}

const labels: Readonly<Record<GatewayOutcome["$typeName"], string>> = {
  GatewayAuthorized: "authorized",
  GatewayDeclined: "declined",
  GatewayVoided: "voided",
  GatewayVoidConfirmed: "void_confirmed",
  GatewayVoidRefused: "void_refused",
  GatewayUnknown: "unknown",
};

/** The answer as a metric's label. */
export function outcomeLabel(answer: GatewayAnswer): string {
  if (answer.fault !== undefined && answer.outcome.$typeName === "GatewayUnknown") return "fault";
  return answer.retryAfterMs === undefined ? labels[answer.outcome.$typeName] : "throttled";
}
