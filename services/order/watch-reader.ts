/** Reads the watched orders that may have changed, with one SELECT for all that came up since the last read. */
import { sleep } from "../kit/backoff.ts";
import type { Queryable } from "../kit/database.ts";
import type { Logger } from "../kit/log.ts";
import { readOrders } from "./repository.ts";
import type { WatchedOrders } from "./watched-orders.ts";

export interface WatchReader {
  /**
   * Reads the order soon, and again after pauses of 20, 100 and 500 ms until its version has grown: the news of a
   * change may arrive before its commit.
   */
  readUntilChanged(orderId: string): void;
  /** Reads the order soon, once. */
  readOnce(orderId: string): void;
}

const rereadDelaysMs = [20, 100, 500] as const;
const readSizeMax = 500;
const retryDelayMs = 500;

/** A reader that delivers the orders to `watched`. It ignores unwatched orders, and stops when `closing` is aborted. */
export function createWatchReader(deps: {
  readonly database: Queryable;
  readonly watched: WatchedOrders;
  readonly log: Logger;
  readonly closing: AbortSignal;
}): WatchReader {
  const { database, watched, log, closing } = deps;
  /** The orders to read next, with the number of rereads that each has had. */
  let pending = new Map<string, number>();
  let isReading = false;

  const scheduleRead = (orderId: string, rereads: number) => {
    if (!watched.has(orderId) || closing.aborted) return;
    pending.set(orderId, Math.min(rereads, pending.get(orderId) ?? rereads));
    if (!isReading) void readPending();
  };

  const rereadLater = (orderId: string, rereads: number) => {
    const delayMs = rereadDelaysMs[rereads];
    if (delayMs !== undefined) setTimeout(() => scheduleRead(orderId, rereads + 1), delayMs).unref();
  };

  const read = async (batch: ReadonlyMap<string, number>) => {
    const orderIds = [...batch.keys()];
    for (let first = 0; first < orderIds.length; first += readSizeMax) {
      const chunk = orderIds.slice(first, first + readSizeMax);
      const orders = await readOrders(database, chunk);
      const changed = new Set(orders.filter(watched.deliver).map((order) => order.orderId));
      for (const orderId of chunk) if (!changed.has(orderId)) rereadLater(orderId, batch.get(orderId) ?? 0);
    }
  };

  const readPending = async () => {
    isReading = true;
    // Waits for the end of this turn of the event loop, so that the orders of one batch share one SELECT.
    await new Promise((resolve) => setImmediate(resolve));
    while (pending.size > 0 && !closing.aborted) {
      const batch = pending;
      pending = new Map();
      try {
        await read(batch);
      } catch (error) {
        // The streams stay open and catch up as soon as the database answers.
        log.warn({ err: error }, "watched orders not read");
        for (const [orderId, rereads] of batch) if (!pending.has(orderId)) pending.set(orderId, rereads);
        await sleep(retryDelayMs, closing);
      }
    }
    isReading = false;
  };

  return {
    readUntilChanged: (orderId) => scheduleRead(orderId, 0),
    // Counts as if all rereads were used up.
    readOnce: (orderId) => scheduleRead(orderId, rereadDelaysMs.length),
  };
}
