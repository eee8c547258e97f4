/**
 * Status push. What is pushed is always Order's own row; topic records and local commits are hints of when to read it.
 * One SELECT reads every hinted order. A slow watcher gets the latest state, not a queue of all.
 */
import { Gauge, type Registry as Metrics } from "prom-client";
import { sleep } from "../kit/backoff.ts";
import type { Queryable } from "../kit/database.ts";
import { DomainError, UnavailableError } from "../kit/errors.ts";
import type { Logger } from "../kit/log.ts";
import { isFinal } from "./domain.ts";
import { type OrderView, readOrders } from "./repository.ts";

/** What a watcher is sent: a state of the order, or a sign of life on a quiet stream. */
export type WatchUpdate = { readonly order: OrderView } | { readonly heartbeat: Date };

export interface OrderWatch {
  /**
   * The order's current state where it is newer than `afterVersion` (or final), then every newer one, until the final.
   * Ends when `signal` is aborted.
   * @throws DomainError NOT_FOUND; UnavailableError when this process closes, or has too many watchers.
   */
  watch(orderId: string, afterVersion: number, signal: AbortSignal): AsyncGenerator<WatchUpdate>;
  /** These orders may have changed; those that nobody watches cost nothing. */
  hint(orderIds: Iterable<string>): void;
  /** Any order may have changed. */
  hintAll(): void;
  close(): void;
}

interface Watcher {
  latest: OrderView | undefined;
  wake(): void;
}

/** All watchers of one order. */
interface Watched {
  /** The newest version that was read; 0 before the first read. */
  version: number;
  readonly watchers: Set<Watcher>;
}

const watchersMax = 20_000;
const heartbeatIntervalMs = 15_000;
const resyncIntervalMs = 5_000;
/** A hint may be faster than the commit that it tells of: look again after these, while nothing has changed. */
const secondLooksMs = [20, 100, 500] as const;
const readSizeMax = 500;
const readRetryMs = 500;

/** One a process. */
export function createOrderWatch(deps: {
  readonly database: Queryable;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Default 15,000. */
  readonly heartbeatIntervalMs?: number;
}): OrderWatch {
  const watched = new Map<string, Watched>();
  const closing = new AbortController();
  let watchersCount = 0;
  new Gauge({
    name: "order_watchers",
    help: "Open WatchOrder streams.",
    registers: [deps.metrics],
    collect() {
      this.set(watchersCount);
    },
  });

  /** Orders to read next, with the number of the look that it is. */
  let hinted = new Map<string, number>();
  let reading = false;

  const hintOne = (orderId: string, look: number) => {
    if (!watched.has(orderId) || closing.signal.aborted) return;
    hinted.set(orderId, Math.min(look, hinted.get(orderId) ?? look));
    if (!reading) void readHinted();
  };

  const readHinted = async () => {
    reading = true;
    // A turn of the event loop gathers the hints of one batch into one SELECT.
    await new Promise((resolve) => setImmediate(resolve));
    while (hinted.size > 0 && !closing.signal.aborted) {
      const looks = hinted;
      hinted = new Map();
      try {
        const orderIds = [...looks.keys()];
        for (let first = 0; first < orderIds.length; first += readSizeMax) {
          const chunk = orderIds.slice(first, first + readSizeMax);
          const grown = new Set((await readOrders(deps.database, chunk)).filter(push).map((order) => order.orderId));
          for (const orderId of chunk) if (!grown.has(orderId)) lookAgain(orderId, looks.get(orderId) ?? 0);
        }
      } catch (error) {
        // The streams stay open; whatever was missed is read as soon as the database answers.
        deps.log.warn({ err: error }, "watched orders could not be read");
        for (const [orderId, look] of looks) if (!hinted.has(orderId)) hinted.set(orderId, look);
        await sleep(readRetryMs, closing.signal);
      }
    }
    reading = false;
  };

  const lookAgain = (orderId: string, look: number) => {
    const delayMs = secondLooksMs[look];
    if (delayMs !== undefined) setTimeout(() => hintOne(orderId, look + 1), delayMs).unref();
  };

  /** Hands an order to its watchers; tells whether its version has grown. */
  const push = (order: OrderView): boolean => {
    const entry = watched.get(order.orderId);
    if (entry === undefined || order.version <= entry.version) return false;
    entry.version = order.version;
    for (const watcher of entry.watchers) {
      watcher.latest = order;
      watcher.wake();
    }
    return true;
  };

  const lookNever = secondLooksMs.length;
  const hintAll = () => {
    // Nothing says that these have changed, so there is no second look.
    for (const orderId of watched.keys()) hintOne(orderId, hinted.get(orderId) ?? lookNever);
  };
  const resync = setInterval(hintAll, resyncIntervalMs);
  resync.unref();

  async function* watch(orderId: string, afterVersion: number, signal: AbortSignal): AsyncGenerator<WatchUpdate> {
    if (watchersCount >= watchersMax) throw new UnavailableError(`There are ${watchersMax} watchers already.`);
    const ended = AbortSignal.any([signal, closing.signal]);
    let awake = Promise.withResolvers<void>();
    const watcher: Watcher = {
      latest: undefined,
      wake: () => awake.resolve(),
    };
    const entry = watched.get(orderId) ?? { version: 0, watchers: new Set() };
    watched.set(orderId, entry);
    entry.watchers.add(watcher);
    watchersCount++;
    ended.addEventListener("abort", watcher.wake, { once: true });
    try {
      // Registered first, read second: a change in between is a hint that is not missed.
      const [current] = await readOrders(deps.database, [orderId]);
      if (current === undefined) throw new DomainError("NOT_FOUND", `There is no order ${orderId}.`);
      if (!push(current)) watcher.latest ??= current;
      let sentVersion = afterVersion;
      for (;;) {
        if (closing.signal.aborted) throw new UnavailableError("This process is closing; watch again to go on.");
        if (signal.aborted) return;
        const order = watcher.latest;
        watcher.latest = undefined;
        if (order !== undefined && (order.version > sentVersion || isFinal(order.status))) {
          yield { order };
          if (isFinal(order.status)) return;
          sentVersion = order.version;
          continue;
        }
        awake = Promise.withResolvers<void>();
        if (watcher.latest !== undefined || ended.aborted) continue;
        let quiet = false;
        const timer = setTimeout(() => {
          quiet = true;
          watcher.wake();
        }, deps.heartbeatIntervalMs ?? heartbeatIntervalMs);
        await awake.promise;
        clearTimeout(timer);
        if (quiet && watcher.latest === undefined && !ended.aborted) yield { heartbeat: new Date() };
      }
    } finally {
      ended.removeEventListener("abort", watcher.wake);
      watchersCount--;
      entry.watchers.delete(watcher);
      if (entry.watchers.size === 0) watched.delete(orderId);
    }
  }

  return {
    watch,
    hint(orderIds) {
      for (const orderId of orderIds) hintOne(orderId, 0);
    },
    hintAll,
    close() {
      clearInterval(resync);
      closing.abort();
    },
  };
}
