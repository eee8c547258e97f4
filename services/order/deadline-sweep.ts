/**
 * Times out orders whose deadline has passed. It runs only while Order has caught up with the topic, because an outage of
 * Order must not fail an order whose awaited event is already on the topic.
 */
import { Counter, type Registry as Metrics } from "prom-client";
import { databaseNow } from "../kit/database.ts";
import { every } from "../kit/every.ts";
import type { Logger } from "../kit/log.ts";
import { type CommandDeps, timeOutOrders } from "./commands.ts";
import type { TopicProgress } from "./topic-progress.ts";

export interface DeadlineSweep {
  /** Ends the current sweep after its batch, and closes `topicProgress`. */
  close(): Promise<void>;
}

const defaultIntervalMs = 2_000;
const batchSizeMax = 100;

/** Sweeps now and every `intervalMs` until closed. While the database or the broker is away, each sweep is logged and skipped. */
export function startDeadlineSweep(options: {
  readonly commandDeps: CommandDeps;
  readonly topicProgress: TopicProgress;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Default 2,000. At most 5,000: `topicProgress` needs two checks within that time. */
  readonly intervalMs?: number;
}): DeadlineSweep {
  const { commandDeps, topicProgress, log } = options;
  const timedOut = new Counter({
    name: "order_timeouts_total",
    help: "Orders that the deadline sweep timed out. Equal to order_compensations_total{reason=TIMED_OUT}.",
    registers: [options.metrics],
  });

  const timeOutOverdueOrders = async (asOf: Date, signal: AbortSignal) => {
    for (;;) {
      const count = await timeOutOrders(commandDeps, asOf, batchSizeMax);
      timedOut.inc(count);
      if (count > 0) log.info({ orders: count }, "timed out");
      if (count < batchSizeMax || signal.aborted) return;
    }
  };

  const sweep = async (signal: AbortSignal) => {
    // Reads the clock before the topic. If this process is suspended in between, the deadlines that pass in that time are left
    // to the next sweep, which looks at the topic again.
    const asOf = await databaseNow(commandDeps.database);
    if (await topicProgress.checkCaughtUp()) await timeOutOverdueOrders(asOf, signal);
  };
  const schedule = every(
    options.intervalMs ?? defaultIntervalMs,
    sweep,
    (error) => log.warn({ err: error }, "deadline sweep skipped"),
    { startNow: true },
  );
  return {
    async close() {
      await schedule.close();
      await topicProgress.close();
    },
  };
}
