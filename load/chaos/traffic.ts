import { sleep } from "../../services/kit/backoff.ts";
import type { Random } from "../model/random.ts";
import { type Observations, OrderClient } from "./order-client.ts";
import { drawOrder } from "./random-orders.ts";

export interface OrderTraffic {
  /** What the clients have seen so far. */
  readonly observations: Observations;
  /** Places one order and returns its id. @throws Error if it is not acknowledged within half a minute. */
  place(paymentMethod: string): Promise<string>;
  /** Places no more orders. Resolves once every request is answered or given up. */
  stop(): Promise<void>;
  /** Resolves once every watcher has seen its order's final status, or after `timeoutMs`. */
  untilWatched(timeoutMs: number): Promise<void>;
}

const cancelPercent = 8;
const watchPercent = 5;
const cancelAfterMaxMs = 1_500;

/**
 * Starts placing orders at a constant rate, whatever the answers are: an open loop, so orders keep arriving in an outage.
 * @param options.random decides what is ordered, cancelled and watched.
 */
export function startTraffic(options: {
  readonly orderUrls: readonly string[];
  readonly ratePerSecond: number;
  readonly random: Random;
}): OrderTraffic {
  const { random } = options;
  const client = new OrderClient(options.orderUrls);
  const stopping = new AbortController();
  const leaving = new AbortController();
  const inFlight = new Set<Promise<unknown>>();
  const watching = new Set<Promise<unknown>>();

  const placeRandomOrder = async () => {
    const request = drawOrder(random);
    const cancelAfterMs = random.chance(cancelPercent) ? random.below(cancelAfterMaxMs) : undefined;
    const isWatched = random.chance(watchPercent);
    const orderId = await client.place(request);
    if (orderId === undefined) return;
    if (isWatched) track(watching, client.watch(orderId, leaving.signal));
    if (cancelAfterMs === undefined) return;
    await sleep(cancelAfterMs);
    await client.cancel(orderId);
  };

  const placing = (async () => {
    const intervalMs = 1_000 / options.ratePerSecond;
    for (let dueMs = performance.now(); !stopping.signal.aborted; dueMs += intervalMs) {
      track(inFlight, placeRandomOrder());
      await sleep(Math.max(0, dueMs + intervalMs - performance.now()), stopping.signal);
    }
  })();

  return {
    get observations() {
      return client.observations;
    },
    async place(paymentMethod) {
      const lines = [{ sku: "sku-0001", quantity: 1 }];
      const orderId = await client.place({ requestId: crypto.randomUUID(), lines, paymentMethod });
      if (orderId === undefined) throw new Error("No order could be placed.");
      return orderId;
    },
    async stop() {
      stopping.abort();
      await placing;
      await Promise.all(inFlight);
    },
    async untilWatched(timeoutMs) {
      const timer = setTimeout(() => leaving.abort(), timeoutMs);
      await Promise.all(watching);
      clearTimeout(timer);
    },
  };
}

/** Keeps `work` in `set` until it has ended. */
function track(set: Set<Promise<unknown>>, work: Promise<unknown>): void {
  set.add(work);
  void work.finally(() => set.delete(work));
}
