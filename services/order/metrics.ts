/**
 * Metrics of the sagas: how many start, how they end and after how long, how many are compensated, how many are in flight.
 * Each instance counts its own commits, so that the sum over all instances counts each saga once.
 */
import { Counter, Histogram, type Registry as Metrics } from "prom-client";
import type { Queryable } from "../kit/database.ts";
import { createCountGauge } from "../kit/health.ts";
import type { Logger } from "../kit/log.ts";
import type { FailureReason, OrderFact } from "./domain.ts";
import { countOrdersInFlight } from "./repository.ts";

export interface CommittedFact {
  readonly fact: OrderFact;
  /** Time since the order was placed. Commands leave it out: they never end an order, so they have no duration to observe. */
  readonly ageSeconds?: number;
}

export interface SagaMetrics {
  recordPlaced(count: number): void;
  recordFacts(facts: readonly CommittedFact[]): void;
}

const failureReasons: readonly FailureReason[] = ["OUT_OF_STOCK", "PAYMENT_DECLINED", "TIMED_OUT", "CANCELLED"];

/** Registers the metrics. Call it once per process. */
export function createSagaMetrics(options: {
  readonly database: Queryable;
  readonly log: Logger;
  readonly metrics: Metrics;
}): SagaMetrics {
  const registers = [options.metrics];
  const started = new Counter({
    name: "order_sagas_started_total",
    help: "Orders placed.",
    registers,
  });
  const completed = new Counter({
    name: "order_sagas_completed_total",
    help: "Orders that became COMPLETED.",
    registers,
  });
  const failed = new Counter({
    name: "order_sagas_failed_total",
    help: "Orders that became FAILED, by reason.",
    labelNames: ["reason"],
    registers,
  });
  const compensations = new Counter({
    name: "order_compensations_total",
    help: "Orders that became COMPENSATING, by reason.",
    labelNames: ["reason"],
    registers,
  });
  const duration = new Histogram({
    name: "order_saga_seconds",
    help: "Time from placement to the final status, by the database's clock. The result is COMPLETED, or the reason for FAILED.",
    labelNames: ["result"],
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3_600],
    registers,
  });
  // Exported as 0 from the start, so that the first increment shows as an increase.
  for (const reason of failureReasons) failed.inc({ reason }, 0);
  // An order that is out of stock has nothing to compensate.
  for (const reason of failureReasons) if (reason !== "OUT_OF_STOCK") compensations.inc({ reason }, 0);
  createCountGauge({
    name: "order_sagas_in_flight",
    help: "Orders that are not final, by status; UNKNOWN for a status of another version. Read from the database, so every instance reports all of them: use max, not sum.",
    label: "status",
    values: ["PENDING", "STOCK_RESERVED", "COMPENSATING", "UNKNOWN"],
    count: () => countOrdersInFlight(options.database),
    log: options.log,
    metrics: options.metrics,
  });

  return {
    recordPlaced: (count) => started.inc(count),
    recordFacts(facts) {
      for (const { fact, ageSeconds } of facts) {
        if (fact.kind === "CompensationStarted") compensations.inc({ reason: fact.reason });
        if (fact.kind === "Completed") completed.inc();
        if (fact.kind === "Failed") failed.inc({ reason: fact.reason });
        if (ageSeconds === undefined) continue;
        if (fact.kind === "Completed") duration.observe({ result: "COMPLETED" }, ageSeconds);
        if (fact.kind === "Failed") duration.observe({ result: fact.reason }, ageSeconds);
      }
    },
  };
}
