import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Order_Status } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { OrderRequest } from "./random-orders.ts";

/** What clients have seen so far. */
export interface Observations {
  /** Ids of the orders that were acknowledged. */
  readonly acknowledged: readonly string[];
  /** Request ids that got an error at every attempt. Their orders may exist nevertheless. */
  readonly unacknowledged: readonly string[];
  /** Attempts that got an error, by its code. */
  readonly errors: Readonly<Record<string, number>>;
  readonly cancels: number;
  readonly watched: number;
  /** What no client should ever see. */
  readonly problems: readonly string[];
}

const attemptTimeoutMs = 3_000;
const attemptsUntilMs = 30_000;
const retryDelayMs = 300;

/** A process that was killed or does not run may look like any of these to a client, so a retry is right. */
const retriable: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.Canceled,
  Code.Unknown,
]);

/** A client as it should be: it retries a request that got no answer with the same request id, and resumes its watches. */
export class OrderClient {
  readonly #instances: readonly Client<typeof OrderService>[];
  readonly #acknowledged: string[] = [];
  readonly #unacknowledged: string[] = [];
  readonly #errors: Record<string, number> = {};
  readonly #problems: string[] = [];
  #cancels = 0;
  #watched = 0;
  #calls = 0;

  /** @param orderUrls one for each instance. Calls go to them in turn. */
  constructor(orderUrls: readonly string[]) {
    this.#instances = orderUrls.map((baseUrl) =>
      createClient(OrderService, createConnectTransport({ baseUrl, httpVersion: "1.1" })),
    );
  }

  get observations(): Observations {
    return {
      acknowledged: this.#acknowledged,
      unacknowledged: this.#unacknowledged,
      errors: this.#errors,
      cancels: this.#cancels,
      watched: this.#watched,
      problems: this.#problems,
    };
  }

  /** Places an order and returns its id, or undefined if no attempt within half a minute was acknowledged. */
  async place(request: OrderRequest): Promise<string | undefined> {
    const deadlineMs = performance.now() + attemptsUntilMs;
    while (performance.now() < deadlineMs) {
      try {
        const { orderId } = await this.#rpc.placeOrder(
          { ...request, lines: [...request.lines] },
          { timeoutMs: attemptTimeoutMs },
        );
        this.#acknowledged.push(orderId);
        return orderId;
      } catch (error) {
        if (!this.#noteError("PlaceOrder", error)) break;
        await sleep(retryDelayMs);
      }
    }
    this.#unacknowledged.push(request.requestId);
    return undefined;
  }

  /** Asks once to cancel an order. An order that is COMPLETED already is no problem. */
  async cancel(orderId: string): Promise<void> {
    try {
      await this.#rpc.cancelOrder({ orderId, reason: "changed my mind" }, { timeoutMs: attemptTimeoutMs });
      this.#cancels++;
    } catch (error) {
      if (ConnectError.from(error).code !== Code.FailedPrecondition) this.#noteError("CancelOrder", error);
    }
  }

  /** Watches an order until it is final, across lost connections. Aborting `signal` ends the watch: a problem. */
  async watch(orderId: string, signal: AbortSignal): Promise<void> {
    this.#watched++;
    let version = 0;
    while (!signal.aborted) {
      try {
        for await (const { event } of this.#rpc.watchOrder({ orderId, afterVersion: version }, { signal })) {
          if (event.case !== "order") continue;
          const { status, version: next } = event.value;
          if (next <= version) this.#problems.push(`a watcher of ${orderId} saw version ${next} after ${version}`);
          version = next;
          if (status === Order_Status.COMPLETED || status === Order_Status.FAILED) return;
        }
      } catch (error) {
        if (!signal.aborted) this.#noteError("WatchOrder", error);
      }
      await sleep(retryDelayMs, signal);
    }
    this.#problems.push(`a watcher of ${orderId} saw no final status; the last version it saw was ${version}`);
  }

  /** The instance for the next call, so that a retry goes to another one. */
  get #rpc(): Client<typeof OrderService> {
    const next = this.#instances[this.#calls++ % this.#instances.length];
    if (next === undefined) throw new Error("Order has no instance.");
    return next;
  }

  /** Counts an error. True if a retry is right; any other error is a problem. */
  #noteError(method: string, error: unknown): boolean {
    const { code, rawMessage } = ConnectError.from(error);
    const name = Code[code] ?? String(code);
    this.#errors[name] = (this.#errors[name] ?? 0) + 1;
    if (!retriable.has(code)) this.#problems.push(`${method} returned ${name}: ${rawMessage}`);
    return retriable.has(code);
  }
}
