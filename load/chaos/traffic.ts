/**
 * Orders at a constant rate, whatever becomes of them: an open loop, so that an outage is not spared its orders. A client
 * as it should be: what was not answered is asked again with the same request id.
 */
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Order_Status } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { Random } from "../model/random.ts";

/** What was asked for, and what was answered. */
export interface OrderTraffic {
  /** Orders that were answered with an id. */
  acknowledged(): readonly string[];
  /** Request ids that got an error at every try. Their orders may exist all the same. */
  unacknowledged(): readonly string[];
  /** Tries that were answered with an error, by its code. */
  errors(): Readonly<Record<string, number>>;
  cancels(): number;
  watched(): number;
  /** What a client should never see. */
  wrongs(): readonly string[];
  /** Places one order and resolves to its id once it is acknowledged. @throws Error after half a minute. */
  place(paymentMethod: string): Promise<string>;
  /** Places no more. Resolves when everything that was asked for has been answered, or given up. */
  stop(): Promise<void>;
  /** Resolves when every watcher has seen the end of its order, or `timeoutMs` are over. */
  untilWatched(timeoutMs: number): Promise<void>;
}

/** Shares in percent; the rest is paid at once. */
const paymentMethods = [
  ["pm_declined", 8],
  ["pm_timeout_charged", 4],
  ["pm_timeout_not_charged", 4],
  ["pm_slow", 8],
] as const;
const outOfStockPercent = 6;
const cancelPercent = 8;
const watchPercent = 5;
const cancelAfterMaxMs = 1_500;
const skuCount = 1_000;
const linesMax = 3;
const attemptTimeoutMs = 3_000;
const attemptsUntilMs = 30_000;
const retryMs = 300;

/** Nobody can tell these from a process that was killed, or is not there: asking again is right. */
const retried: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.Canceled,
  Code.Unknown,
]);

/** Begins to place orders. @param options.random draws what is ordered. */
export function startTraffic(options: {
  readonly orderUrl: string;
  readonly ratePerSecond: number;
  readonly random: Random;
}): OrderTraffic {
  const { random } = options;
  const client: Client<typeof OrderService> = createClient(
    OrderService,
    createConnectTransport({ baseUrl: options.orderUrl, httpVersion: "1.1" }),
  );
  const acknowledged: string[] = [];
  const unacknowledged: string[] = [];
  const wrongs: string[] = [];
  const errors: Record<string, number> = {};
  const stopping = new AbortController();
  const leaving = new AbortController();
  const underWay = new Set<Promise<unknown>>();
  const watching = new Set<Promise<unknown>>();
  let cancels = 0;
  let watched = 0;

  /** True where asking again is right. */
  const noteError = (what: string, error: unknown): boolean => {
    const { code, rawMessage } = ConnectError.from(error);
    const name = Code[code] ?? String(code);
    errors[name] = (errors[name] ?? 0) + 1;
    if (!retried.has(code)) wrongs.push(`${what} was answered ${name}: ${rawMessage}`);
    return retried.has(code);
  };

  const place = async (request: ReturnType<typeof draw>): Promise<string | undefined> => {
    const deadlineMs = performance.now() + attemptsUntilMs;
    while (performance.now() < deadlineMs) {
      try {
        const { orderId } = await client.placeOrder(request, { timeoutMs: attemptTimeoutMs });
        acknowledged.push(orderId);
        return orderId;
      } catch (error) {
        if (!noteError("PlaceOrder", error)) break;
        await sleep(retryMs);
      }
    }
    unacknowledged.push(request.requestId);
    return undefined;
  };

  const cancel = async (orderId: string) => {
    try {
      await client.cancelOrder({ orderId, reason: "changed my mind" }, { timeoutMs: attemptTimeoutMs });
      cancels++;
    } catch (error) {
      // Completed before.
      if (ConnectError.from(error).code !== Code.FailedPrecondition) noteError("CancelOrder", error);
    }
  };

  /** Watches to the end, however often the connection is lost on the way. */
  const watch = async (orderId: string) => {
    watched++;
    let version = 0;
    while (!leaving.signal.aborted) {
      try {
        const { signal } = leaving;
        for await (const { event } of client.watchOrder({ orderId, afterVersion: version }, { signal })) {
          if (event.case !== "order") continue;
          const { status, version: next } = event.value;
          if (next <= version) wrongs.push(`a watcher of ${orderId} saw version ${next} after ${version}`);
          version = next;
          if (status === Order_Status.COMPLETED || status === Order_Status.FAILED) return;
        }
      } catch (error) {
        if (!leaving.signal.aborted) noteError("WatchOrder", error);
      }
      await sleep(retryMs, leaving.signal);
    }
    wrongs.push(`a watcher of ${orderId} has not seen its end; its last version was ${version}`);
  };

  const one = async () => {
    const request = draw(random);
    const cancelAfterMs = random.chance(cancelPercent) ? random.below(cancelAfterMaxMs) : undefined;
    const isWatched = random.chance(watchPercent);
    const orderId = await place(request);
    if (orderId === undefined) return;
    if (isWatched) remember(watching, watch(orderId));
    if (cancelAfterMs === undefined) return;
    await sleep(cancelAfterMs);
    await cancel(orderId);
  };

  const placing = (async () => {
    const intervalMs = 1_000 / options.ratePerSecond;
    for (let dueMs = performance.now(); !stopping.signal.aborted; dueMs += intervalMs) {
      remember(underWay, one());
      await sleep(Math.max(0, dueMs + intervalMs - performance.now()), stopping.signal);
    }
  })();

  return {
    acknowledged: () => acknowledged,
    unacknowledged: () => unacknowledged,
    errors: () => errors,
    cancels: () => cancels,
    watched: () => watched,
    wrongs: () => wrongs,
    async place(paymentMethod) {
      const orderId = await place({ ...draw(random), lines: [{ sku: skuName(1), quantity: 1 }], paymentMethod });
      if (orderId === undefined) throw new Error("No order could be placed.");
      return orderId;
    },
    async stop() {
      stopping.abort();
      await placing;
      await Promise.all(underWay);
    },
    async untilWatched(timeoutMs) {
      const timer = setTimeout(() => leaving.abort(), timeoutMs);
      await Promise.all(watching);
      clearTimeout(timer);
    },
  };
}

function remember(set: Set<Promise<unknown>>, work: Promise<unknown>): void {
  set.add(work);
  void work.finally(() => set.delete(work));
}

function draw(random: Random) {
  const skus = new Set<string>();
  const linesCount = 1 + random.below(linesMax);
  while (skus.size < linesCount) skus.add(skuName(1 + random.below(skuCount)));
  if (random.chance(outOfStockPercent)) skus.add("sku-none");
  return {
    requestId: crypto.randomUUID(),
    lines: [...skus].map((sku) => ({ sku, quantity: 1 + random.below(2) })),
    paymentMethod: drawPaymentMethod(random),
  };
}

function drawPaymentMethod(random: Random): string {
  let draw = random.below(100);
  for (const [method, percent] of paymentMethods) {
    if (draw < percent) return method;
    draw -= percent;
  }
  return "pm_ok";
}

function skuName(number: number): string {
  return `sku-${String(number).padStart(4, "0")}`;
}
