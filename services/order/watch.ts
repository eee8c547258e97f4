/**
 * Pushes order states to clients. What is pushed is always Order's own row. Topic records and local commits only
 * cause that row to be read again.
 */
import { Gauge, type Registry as Metrics } from "prom-client";
import type { Queryable } from "../kit/database.ts";
import { DomainError, UnavailableError } from "../kit/errors.ts";
import type { Logger } from "../kit/log.ts";
import { isFinal } from "./domain.ts";
import { createOrderReader } from "./order-reader.ts";
import type { OrderView } from "./repository.ts";
import { createWatchReader } from "./watch-reader.ts";
import { type Mailbox, WatchedOrders } from "./watched-orders.ts";

/** What a stream sends: a state of the order, or a heartbeat if it was quiet for a while. */
export type WatchUpdate = { readonly order: OrderView } | { readonly heartbeat: Date };

export interface OrderWatch {
  /**
   * Yields the order's current state if it is newer than `afterVersion` or final, else a heartbeat, as soon as it has read the
   * order. Then yields each newer state that it reads, and ends after the final one. A slow consumer skips states. Ends when
   * `signal` is aborted, also while it reads.
   * @throws DomainError NOT_FOUND; UnavailableError when this process closes or has too many watchers.
   */
  watch(orderId: string, afterVersion: number, signal: AbortSignal): AsyncGenerator<WatchUpdate>;
  /** Reads these orders again, soon. Unwatched orders cost nothing. */
  mayHaveChanged(orderIds: Iterable<string>): void;
  /** Reads all watched orders again, soon. */
  anyMayHaveChanged(): void;
  close(): void;
}

const watchersMax = 20_000;
const defaultHeartbeatIntervalMs = 15_000;
/** All watched orders are read this often, in case a change was missed. */
const resyncIntervalMs = 5_000;

/** Creates the process's watch. Call it once per process. */
export function createOrderWatch(deps: {
  /** Gets at most two statements at a time: one for new watches, and one for those that are open. */
  readonly database: Queryable;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Default 15,000. */
  readonly heartbeatIntervalMs?: number;
}): OrderWatch {
  const { database, log, heartbeatIntervalMs = defaultHeartbeatIntervalMs } = deps;
  const watched = new WatchedOrders();
  const closing = new AbortController();
  const readFirst = createOrderReader(database);
  const reader = createWatchReader({ database, watched, log, closing: closing.signal });
  new Gauge({
    name: "order_watchers",
    help: "Open WatchOrder streams.",
    registers: [deps.metrics],
    collect() {
      this.set(watched.watchersCount);
    },
  });

  const anyMayHaveChanged = () => {
    for (const orderId of watched.orderIds) reader.readOnce(orderId);
  };
  const resync = setInterval(anyMayHaveChanged, resyncIntervalMs);
  resync.unref();

  async function* watch(orderId: string, afterVersion: number, signal: AbortSignal): AsyncGenerator<WatchUpdate> {
    if (watched.watchersCount >= watchersMax) throw new UnavailableError("Too many watchers; try again.");
    if (signal.aborted) return;
    const mailbox = watched.add(orderId);
    const left = Promise.withResolvers<undefined>();
    const leave = () => {
      left.resolve(undefined);
      mailbox.wake();
    };
    signal.addEventListener("abort", leave, { once: true });
    try {
      // Registers first and reads second, so that no change in between is missed.
      const current = await Promise.race([readFirst(orderId, signal), left.promise]);
      if (signal.aborted) return;
      if (current === undefined) throw new DomainError("NOT_FOUND", `There is no order ${orderId}.`);
      // If it is not newer than what the order's other watchers have seen, only this one needs it.
      if (!watched.deliver(current)) mailbox.putIfEmpty(current);
      yield* updatesOf(mailbox, { afterVersion, heartbeatIntervalMs, ended: signal, closing: closing.signal });
    } finally {
      signal.removeEventListener("abort", leave);
      watched.remove(orderId, mailbox);
    }
  }

  return {
    watch,
    mayHaveChanged(orderIds) {
      for (const orderId of orderIds) reader.readUntilChanged(orderId);
    },
    anyMayHaveChanged,
    close() {
      clearInterval(resync);
      closing.abort();
      watched.wakeAll();
    },
  };
}

/**
 * Yields the states that arrive in the mailbox, and a heartbeat after each quiet interval. The first update comes at once,
 * because a caller that receives nothing cannot distinguish a quiet order from a server that does not answer. Returns
 * after a final state or when `ended` is aborted.
 */
async function* updatesOf(
  mailbox: Mailbox,
  options: {
    readonly afterVersion: number;
    readonly heartbeatIntervalMs: number;
    readonly ended: AbortSignal;
    readonly closing: AbortSignal;
  },
): AsyncGenerator<WatchUpdate> {
  const { ended, closing } = options;
  let sentVersion = options.afterVersion;
  for (let waitMs = 0; ; waitMs = options.heartbeatIntervalMs) {
    if (closing.aborted) throw new UnavailableError("This process is shutting down; watch again to continue.");
    if (ended.aborted) return;
    const order = mailbox.take();
    if (order !== undefined && (order.version > sentVersion || isFinal(order.status))) {
      yield { order };
      if (isFinal(order.status)) return;
      sentVersion = order.version;
      continue;
    }
    const wasWoken = waitMs > 0 && (await mailbox.wait(waitMs));
    if (!wasWoken && mailbox.isEmpty && !ended.aborted) yield { heartbeat: new Date() };
  }
}
