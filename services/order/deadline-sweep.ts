/**
 * Gives up orders whose deadline has passed, but only while Order has heard everything that lies on the topic: an outage
 * of ours must never fail an order whose answer is there already.
 */
import { Counter, type Registry as Metrics } from "prom-client";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { sleep } from "../kit/backoff.ts";
import type { Logger } from "../kit/log.ts";
import { type CommandDeps, timeOutOrders } from "./commands.ts";
import { readClock } from "./repository.ts";

export interface Sweeper {
  close(): Promise<void>;
}

const checkIntervalMs = 2_000;
/**
 * What was the end of the topic at the last check has been handled since, or nothing is given up; and that check was not
 * longer ago than this. Else whoever stood still for minutes would wake up and go by the topic as it was before.
 */
const endsAgeMaxMs = 5_000;
const batchSizeMax = 100;

/** Tells whether a group has handled everything that was on the topic when it was last asked, at most 5 s ago. */
export interface CaughtUp {
  /** @throws Error while no broker answers. */
  check(): Promise<boolean>;
  close(): Promise<void>;
}

/** Compares the group's committed offsets with the topic's ends as they were at the check before. */
export function createCaughtUp(options: {
  readonly kafka: KafkaOptions;
  readonly topic: string;
  readonly groupId: string;
  /** Monotonic. Default: the process's. */
  readonly nowMs?: () => number;
}): CaughtUp {
  const nowMs = options.nowMs ?? (() => performance.now());
  let admin: KafkaAdmin | undefined;
  let endsBefore: { readonly ends: ReadonlyMap<number, bigint>; readonly atMs: number } | undefined;
  const forget = async () => {
    const closing = admin;
    admin = undefined;
    endsBefore = undefined;
    await closing?.close().catch(() => undefined);
  };
  return {
    async check() {
      try {
        admin ??= await openAdmin(options.kafka);
        const committed = new Map(
          (await admin.committedOffsets(options.groupId, options.topic)).map((it) => [it.partition, BigInt(it.offset)]),
        );
        const atMs = nowMs();
        const ranges = await admin.endOffsets(options.topic);
        const lows = new Map(ranges.map((it) => [it.partition, BigInt(it.low)]));
        // A group that has committed nothing stands at the partition's beginning.
        const positionOf = (partition: number) => {
          const offset = committed.get(partition) ?? -1n;
          return offset < 0n ? (lows.get(partition) ?? 0n) : offset;
        };
        const caughtUp =
          endsBefore !== undefined &&
          nowMs() - endsBefore.atMs <= endsAgeMaxMs &&
          [...endsBefore.ends].every(([partition, end]) => positionOf(partition) >= end);
        endsBefore = { ends: new Map(ranges.map((it) => [it.partition, BigInt(it.offset)])), atMs };
        return caughtUp;
      } catch (error) {
        await forget();
        throw error;
      }
    },
    close: forget,
  };
}

/** Sweeps until closed. With the database or the broker away it waits. */
export function startSweeper(options: {
  readonly commands: CommandDeps;
  readonly caughtUp: CaughtUp;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Default 2,000; at most 5,000. */
  readonly checkIntervalMs?: number;
}): Sweeper {
  const { log } = options;
  const closing = new AbortController();
  const timedOut = new Counter({
    name: "order_timeouts_total",
    help: "Orders that were given up at their deadline.",
    registers: [options.metrics],
  });
  const sweep = async (asOf: Date) => {
    for (;;) {
      const count = await timeOutOrders(options.commands, asOf, batchSizeMax);
      timedOut.inc(count);
      if (count > 0) log.info({ orders: count }, "timed out");
      if (count < batchSizeMax || closing.signal.aborted) return;
    }
  };
  const run = async () => {
    while (!closing.signal.aborted) {
      try {
        // Read before: were this process to stand still from here on, a deadline that passes meanwhile is not judged by
        // what was known of the topic then.
        const asOf = await readClock(options.commands.database);
        if (await options.caughtUp.check()) await sweep(asOf);
      } catch (error) {
        log.warn({ err: error }, "the sweeper waits");
      }
      await sleep(options.checkIntervalMs ?? checkIntervalMs, closing.signal);
    }
  };
  const running = run();
  return {
    async close() {
      closing.abort();
      await running;
      await options.caughtUp.close();
    },
  };
}
