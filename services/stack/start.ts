/** `npm start`: the whole system on one machine, from nothing; then sample orders, and the commands to place more. */

import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { ConfigError, environment } from "../kit/config.ts";
import { messageOf } from "../kit/errors.ts";
import { say } from "./console.ts";
import { printError } from "./errors.ts";
import { lockDataFolder } from "./lock.ts";
import { placeSampleOrders } from "./samples.ts";
import {
  type BrokerCount,
  brokerCounts,
  type Instances,
  instancesMax,
  oneInstanceEach,
  parseBrokers,
  parseInstances,
  readStackSettings,
  type StackSettings,
  scalableNames,
} from "./settings.ts";
import { Stack } from "./stack.ts";
import { stackFilePath } from "./stack-file.ts";

const root = join(import.meta.dir, "../..");
const parentPollMs = 500;
/** npm, the terminal and the bootstrap each forward a Ctrl-C. Only a signal that comes later counts as a second one. */
const sameSignalMs = 1_500;

const usage = `Usage: npm start -- [--exit] [--no-samples] [--instances order=2,relay=2] [--brokers 3]
  --exit        stop after the sample orders: exit code 0 if each got its expected final status, else 1
  --no-samples  place no sample orders
  --instances   how many processes of ${scalableNames.join(", ")} (1 to ${instancesMax} each)
  --brokers     how many Kafka brokers: ${brokerCounts.join(" or ")} (default 1); it belongs to the data and stays as it is`;

interface Arguments {
  readonly exit: boolean;
  readonly samples: boolean;
  readonly instances: Instances;
  readonly brokers: BrokerCount;
}

/** @throws ConfigError that says what is wrong. */
function parseArguments(args: readonly string[]): Arguments {
  const flag = { type: "boolean", default: false } as const;
  try {
    const { values } = parseArgs({
      args: [...args],
      options: { exit: flag, "no-samples": flag, instances: { type: "string" }, brokers: { type: "string" } },
    });
    return {
      exit: values.exit,
      samples: !values["no-samples"],
      instances: values.instances === undefined ? oneInstanceEach : parseInstances(values.instances),
      brokers: values.brokers === undefined ? 1 : parseBrokers(values.brokers),
    };
  } catch (error) {
    throw new ConfigError(messageOf(error));
  }
}

/** The addresses of everything, and commands to place and watch an order. */
function describeStack({ order, gateway, kafka, health }: Stack["addresses"], settings: StackSettings): string {
  const { host, ports, dataFolder } = settings;
  const grpcAddress = new URL(order.grpc).host;
  const requestId = '"requestId":"\'$(cat /proc/sys/kernel/random/uuid)\'"';
  const lines = '"lines":[{"sku":"sku-0001","quantity":2}],"paymentMethod":"pm_ok"';
  const grpcurl = "grpcurl -plaintext -import-path proto -proto shop/order/v1/order_service.proto";
  const addresses = [
    ["Order: Connect, gRPC-Web, JSON", order.http],
    ["Order: gRPC (h2c)", grpcAddress],
    ["Fake payment gateway", gateway],
    ["Kafka", kafka.brokers.join(", ")],
    ["MariaDB", `${host}:${ports.mariadb} (root, no password)`],
    ...Object.entries(health)
      .filter(([name]) => name !== "gateway")
      .map(([name, url]) => [`Health and metrics: ${name}`, `${url}/readyz, /metrics`]),
    ["All of this as JSON", shownPath(stackFilePath(dataFolder))],
    ["Logs", shownPath(join(dataFolder, "logs"))],
  ];
  return `
${addresses.map(([name = "", where]) => `  ${name.padEnd(32)}${where}`).join("\n")}

Place an order:
  curl -s ${order.http}/shop.order.v1.OrderService/PlaceOrder -H 'content-type: application/json' -d '{${requestId},${lines}}'
  ${grpcurl} -d '{${requestId},${lines}}' ${grpcAddress} shop.order.v1.OrderService/PlaceOrder

Read it or watch it (insert its orderId):
  curl -s ${order.http}/shop.order.v1.OrderService/GetOrder -H 'content-type: application/json' -d '{"orderId":"…"}'
  ${grpcurl} -d '{"orderId":"…"}' ${grpcAddress} shop.order.v1.OrderService/WatchOrder
  npm run bun -- x buf curl --schema proto --protocol connect -d '{"orderId":"…"}' ${order.http}/shop.order.v1.OrderService/WatchOrder

Ctrl-C stops everything.`;
}

function shownPath(path: string): string {
  const fromRoot = relative(root, path);
  return fromRoot.startsWith("..") ? path : fromRoot;
}

/** Resolves at a signal, or if the process that started us ends. A second signal kills everything. */
function stopRequested(): Promise<void> {
  const requested = Promise.withResolvers<void>();
  let requestedAtMs: number | undefined;
  const request = (why: string) => {
    if (requestedAtMs === undefined) {
      requestedAtMs = performance.now();
      say(`${why}: stopping everything in order …`);
      requested.resolve();
    } else if (performance.now() - requestedAtMs > sameSignalMs) {
      say("Second signal: killing what still runs.");
      process.exit(1);
    }
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => request(signal));
  watchParent(() => request("The process that started this has ended"));
  return requested.promise;
}

/** Calls `onGone` if the process that started us is killed: then a Ctrl-C can no longer reach us. */
function watchParent(onGone: () => void): void {
  const parent = Number(environment().ORDER_SAGA_PARENT_PID);
  if (parent !== process.ppid) return;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    onGone();
  }, parentPollMs);
}

/** Returns the exit code. */
async function main(): Promise<number> {
  const { exit, samples, instances, brokers } = parseArguments(process.argv.slice(2));
  const settings = readStackSettings(environment(), root, brokers);
  const stack = new Stack(settings, instances, await lockDataFolder(settings.dataFolder));
  const stopping = stopRequested();

  const work = async (): Promise<number> => {
    await stack.start();
    const asExpected = samples ? await placeSampleOrders(stack.addresses.order.http) : true;
    if (exit) {
      if (samples) say(`${asExpected ? "Every" : "Not every"} sample order ended as expected.`);
      return asExpected ? 0 : 1;
    }
    console.log(describeStack(stack.addresses, settings));
    await stopping;
    return 0;
  };
  try {
    // To stop it while it is starting is no error, although the start is not complete.
    return await Promise.race([work(), stopping.then(() => 0)]);
  } finally {
    await stack.stop();
    say("Everything has stopped.");
  }
}

try {
  process.exit(await main());
} catch (error) {
  printError(error);
  if (!(error instanceof ConfigError)) process.exit(1);
  console.error(usage);
  process.exit(2);
}
