/**
 * The k6 script: places orders at a constant rate and watches a share of them until they are final. The model is open: the
 * rate does not depend on how fast the system answers. measure.ts starts the script in k6's own engine.
 */
import exec from "k6/execution";
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";
import { Client, Stream } from "k6/net/grpc";
import type { Options, Scenario } from "k6/options";
import type { LoadPlan, LoadSummary, Quantiles } from "./plan.ts";

const planText = __ENV.LOAD_PLAN;
if (planText === undefined) throw new Error("LOAD_PLAN is not set. Use npm run load to start this script.");
const plan: LoadPlan = JSON.parse(planText);

const answerTimeout = "10s";
const connectTimeout = "5s";
const skuCount = 1_000;
const linesMax = 3;
const quantityMax = 3;

const acknowledged = new Counter("orders_acknowledged");
const errors = new Counter("order_errors");
const watched = new Counter("watches");
const watchesNotFinal = new Counter("watches_not_final");
const answeredMs = new Trend("order_answered_ms", true);
const watchedFinalMs = new Trend("order_watched_final_ms", true);

export const options: Options = {
  scenarios: {
    place: arrivals("place", 1 - plan.watchShare, plan.placingUsers),
    // Watchers are separate users: only they hold a gRPC connection, and a user who waits for a final status places no orders.
    ...(plan.watchShare > 0 ? { watch: arrivals("watch", plan.watchShare, plan.watchingUsers) } : {}),
  },
  thresholds: {
    order_errors: ["count==0"],
    dropped_iterations: ["count==0"],
    watches_not_final: ["count==0"],
  },
  summaryTrendStats: ["count", "med", "p(95)", "p(99)", "max"],
  // Each further tag makes every sample more expensive, and the summary does not need them.
  systemTags: ["scenario"],
};

function arrivals(name: "place" | "watch", share: number, users: number): Scenario {
  return {
    executor: "constant-arrival-rate",
    exec: name,
    // Per minute, so that a small share of a low rate is still a whole number.
    rate: Math.max(1, Math.round(plan.ratePerSecond * share * 60)),
    timeUnit: "60s",
    duration: `${plan.seconds}s`,
    preAllocatedVUs: users,
    maxVUs: users,
    gracefulStop: `${plan.watchTimeoutSeconds + 5}s`,
  };
}

// k6 loads schemas only while it initializes a user.
const client = new Client();
client.load(["../../proto"], "shop/order/v1/order_service.proto");
let isConnected = false;
let hasReported = false;

export function place(): void {
  placeOrder();
}

export async function watch(): Promise<void> {
  const startedAtMs = Date.now();
  try {
    // Connects before the order is placed, so that the time to connect is not counted as the order's.
    connect();
  } catch (error) {
    fail(`WatchOrder: ${error}`);
    return;
  }
  const connectedAtMs = Date.now();
  const orderId = placeOrder();
  if (orderId === undefined) return;
  watched.add(1);
  const problem = await watchUntilFinal(orderId);
  if (problem === undefined) {
    watchedFinalMs.add(Date.now() - connectedAtMs);
  } else {
    watchesNotFinal.add(1);
    report(`WatchOrder ${orderId} after ${Date.now() - startedAtMs} ms: ${problem}`);
  }
}

/** Places a random order. Returns its id, or undefined if it was not acknowledged. */
function placeOrder(): string | undefined {
  const response = http.post(`${instance(plan.httpUrls)}/shop.order.v1.OrderService/PlaceOrder`, randomOrder(), {
    headers: { "content-type": "application/json" },
    timeout: answerTimeout,
  });
  const answer = response.status === 200 ? (response.json() as { orderId?: string; status?: string }) : undefined;
  if (answer?.orderId === undefined || answer.status !== "PENDING") {
    fail(`PlaceOrder: ${response.status} ${response.error} ${String(response.body).slice(0, 200)}`);
    return undefined;
  }
  acknowledged.add(1);
  answeredMs.add(response.timings.duration);
  return answer.orderId;
}

function randomOrder(): string {
  const draw = Math.random();
  const isOutOfStock = draw < plan.outOfStockShare;
  const isDeclined = !isOutOfStock && draw < plan.outOfStockShare + plan.declinedShare;
  const skus = new Set<string>();
  const linesCount = 1 + Math.floor(Math.random() * linesMax);
  while (skus.size < linesCount) {
    skus.add(`sku-${String(1 + Math.floor(Math.random() * skuCount)).padStart(4, "0")}`);
  }
  if (isOutOfStock) skus.add("sku-none");
  return JSON.stringify({
    requestId: plan.run + crypto.randomUUID().slice(plan.run.length),
    lines: [...skus].map((sku) => ({ sku, quantity: 1 + Math.floor(Math.random() * quantityMax) })),
    paymentMethod: isDeclined ? "pm_declined" : "pm_ok",
  });
}

/** Watches an order until it is final. Returns the problem if there was one. */
function watchUntilFinal(orderId: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    let isFinal = false;
    let version = 0;
    let problem: string | undefined;
    const stream = new Stream(client, "shop.order.v1.OrderService/WatchOrder", {
      timeout: `${plan.watchTimeoutSeconds}s`,
    });
    stream.on("data", (message) => {
      const { order } = message as { order?: { status: string; version: number } };
      if (order === undefined) return;
      if (order.version <= version) problem = `version ${order.version} came after ${version}`;
      version = order.version;
      isFinal = order.status === "COMPLETED" || order.status === "FAILED";
    });
    stream.on("error", (error) => {
      problem ??= JSON.stringify(error);
    });
    stream.on("end", () => {
      resolve(problem ?? (isFinal ? undefined : `the stream ended at version ${version}, which is not final`));
    });
    stream.write({ orderId });
    stream.end();
  });
}

/** Connects once per virtual user. k6 reconnects by itself. */
function connect(): void {
  if (isConnected) return;
  client.connect(instance(plan.grpcAddresses), { plaintext: true, timeout: connectTimeout });
  isConnected = true;
}

function instance(endpoints: readonly string[]): string {
  return endpoints[exec.vu.idInTest % endpoints.length] ?? "";
}

function fail(message: string): void {
  errors.add(1);
  report(message);
}

/** Prints only a user's first failure, since the others rarely add anything. */
function report(message: string): void {
  if (hasReported) return;
  hasReported = true;
  console.error(message);
}

interface EndOfTest {
  readonly metrics: Readonly<Record<string, { readonly values: Readonly<Record<string, number>> }>>;
}

export function handleSummary({ metrics }: EndOfTest): Record<string, string> {
  const count = (name: string) => metrics[name]?.values.count ?? 0;
  const quantiles = (name: string): Quantiles | undefined => {
    const values = metrics[name]?.values;
    if (values === undefined || !values.count) return undefined;
    const read = (statistic: string) => values[statistic] ?? 0;
    return { count: values.count, p50: read("med"), p95: read("p(95)"), p99: read("p(99)"), max: read("max") };
  };
  const summary: LoadSummary = {
    acknowledged: count("orders_acknowledged"),
    errors: count("order_errors"),
    droppedIterations: count("dropped_iterations"),
    watched: count("watches"),
    watchesNotFinal: count("watches_not_final"),
    answeredMs: quantiles("order_answered_ms"),
    watchedFinalMs: quantiles("order_watched_final_ms"),
  };
  return { [plan.summaryFile]: JSON.stringify(summary) };
}
