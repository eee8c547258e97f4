/** `npm start`: the whole system on one machine, from nothing; then sample orders, and what to call. */

import { rm, statfs } from "node:fs/promises";
import { join, relative } from "node:path";
import { ConfigError, environment } from "../kit/config.ts";
import { messageOf } from "../kit/errors.ts";
import { say } from "./console.ts";
import { explained, StackError } from "./errors.ts";
import { requireFreePorts } from "./free-ports.ts";
import { type DataFolderLock, lockDataFolder } from "./lock.ts";
import { stopOrphans } from "./orphans.ts";
import { type ProcessPlan, planProcesses } from "./processes.ts";
import { provisionDatabases, provisionTopics } from "./provision.ts";
import { placeSampleOrders } from "./samples.ts";
import { ensurePrograms } from "./servers/downloads.ts";
import { prepareKafka } from "./servers/kafka.ts";
import { prepareMariadb } from "./servers/mariadb.ts";
import {
  databaseAdminUrl,
  type Instances,
  instancesMax,
  parseInstances,
  readStackSettings,
  type StackSettings,
  scalableNames,
} from "./settings.ts";
import { stackFilePath, writeStackFile } from "./stack-file.ts";
import { Supervisor } from "./supervisor.ts";

const root = join(import.meta.dir, "../..");
const freeBytesMin = 500_000_000;
const parentPollMs = 500;
/** npm, the terminal and the bootstrap each pass a Ctrl-C on; only one that comes later is a second one. */
const sameSignalMs = 1_500;

const usage = `Usage: npm start -- [--exit] [--no-samples] [--instances order=2,relay=2]
  --exit        end after the sample orders: 0 when each got its expected final status, else 1
  --no-samples  place no sample orders
  --instances   how many processes of ${scalableNames.join(", ")} (1 to ${instancesMax} each)`;

interface Arguments {
  readonly exit: boolean;
  readonly samples: boolean;
  readonly instances: Instances;
}

function parseArguments(args: readonly string[]): Arguments {
  let exit = false;
  let samples = true;
  let instances = "order=1";
  const rest = [...args];
  for (let flag = rest.shift(); flag !== undefined; flag = rest.shift()) {
    const [name, value] = flag.split(/=(.*)/s, 2);
    if (flag === "--exit") exit = true;
    else if (flag === "--no-samples") samples = false;
    else if (name === "--instances") instances = value ?? rest.shift() ?? "";
    else throw new ConfigError(`There is no flag ${flag}.`);
  }
  return { exit, samples, instances: parseInstances(instances) };
}

/** One run of the stack: what was begun is ended by `stop`, whatever was reached by then. */
class Stack {
  readonly #settings: StackSettings;
  readonly #plan: ProcessPlan;
  readonly #supervisor: Supervisor;
  readonly #lock: DataFolderLock;
  #complete = false;
  #writing: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;

  constructor(settings: StackSettings, instances: Instances, lock: DataFolderLock) {
    this.#settings = settings;
    this.#lock = lock;
    this.#plan = planProcesses(settings, instances);
    this.#supervisor = new Supervisor({
      root,
      dataFolder: settings.dataFolder,
      logFolder: join(settings.dataFolder, "logs"),
      onChange: () => this.#writeStackFile(),
    });
  }

  get isStopping(): boolean {
    return this.#stopped !== undefined;
  }

  async start(instances: Instances): Promise<void> {
    const settings = this.#settings;
    const orphans = await stopOrphans(settings.dataFolder);
    if (orphans > 0) say(`Ended ${orphans} processes that a stack left behind when it was killed.`);
    await rm(stackFilePath(settings.dataFolder), { force: true });
    await requireFreePorts(settings, instances);
    await requireFreeSpace(settings.dataFolder);
    const programs = await ensurePrograms(settings.cacheFolder);
    say("Starting MariaDB, Kafka and the payment gateway …");
    const mariadb = async () => {
      await this.#supervisor.start(await prepareMariadb(settings, programs));
      await provisionDatabases(databaseAdminUrl(settings));
      say("MariaDB is up; databases, users, tables and demo data are there.");
    };
    const kafka = async () => {
      await this.#supervisor.start(await prepareKafka(settings, programs));
      await provisionTopics([{ host: settings.host, port: settings.ports.kafka }], 1);
      say("Kafka is up; topics are there.");
    };
    await Promise.all([mariadb(), kafka(), this.#supervisor.start(this.#plan.gateway)]);
    say(`Starting ${this.#plan.others.map(({ name }) => name).join(", ")} …`);
    await Promise.all(this.#plan.others.map((spec) => this.#supervisor.start(spec)));
    this.#complete = true;
    this.#writeStackFile();
    await this.#writing;
    say("Everything is ready.");
  }

  async placeSamples(): Promise<boolean> {
    return placeSampleOrders(this.#plan.stackFile.order.http);
  }

  describe(): string {
    const { order, gateway, health } = this.#plan.stackFile;
    const grpcAddress = new URL(order.grpc).host;
    const requestId = '"requestId":"\'$(cat /proc/sys/kernel/random/uuid)\'"';
    const lines = '"lines":[{"sku":"sku-0001","quantity":2}],"paymentMethod":"pm_ok"';
    const grpcurl = "grpcurl -plaintext -import-path proto -proto shop/order/v1/order_service.proto";
    const endpoints = [
      ["Order: Connect, gRPC-Web, JSON", order.http],
      ["Order: gRPC (h2c)", grpcAddress],
      ["Payment gateway", gateway],
      ["Kafka", `${this.#settings.host}:${this.#settings.ports.kafka}`],
      ["MariaDB", `${this.#settings.host}:${this.#settings.ports.mariadb} (root, no password)`],
      ...Object.entries(health)
        .filter(([name]) => name !== "gateway")
        .map(([name, url]) => [`Health and metrics: ${name}`, `${url}/readyz, /metrics`]),
      ["All of it, for tools", shownPath(stackFilePath(this.#settings.dataFolder))],
      ["Logs", shownPath(join(this.#settings.dataFolder, "logs"))],
    ];
    return `
${endpoints.map(([name = "", where]) => `  ${name.padEnd(32)}${where}`).join("\n")}

Place an order:
  curl -s ${order.http}/shop.order.v1.OrderService/PlaceOrder -H 'content-type: application/json' -d '{${requestId},${lines}}'
  ${grpcurl} -d '{${requestId},${lines}}' ${grpcAddress} shop.order.v1.OrderService/PlaceOrder

Look at it, and watch it (put in its orderId):
  curl -s ${order.http}/shop.order.v1.OrderService/GetOrder -H 'content-type: application/json' -d '{"orderId":"…"}'
  ${grpcurl} -d '{"orderId":"…"}' ${grpcAddress} shop.order.v1.OrderService/WatchOrder
  npm run bun -- x buf curl --schema proto --protocol connect -d '{"orderId":"…"}' ${order.http}/shop.order.v1.OrderService/WatchOrder

Ctrl-C ends everything, in order.`;
  }

  /** Ends all processes in order and gives the data folder free. Any number of callers. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    await this.#lock.markStopping();
    await this.#supervisor.stopAll();
    await this.#writing;
    await rm(stackFilePath(this.#settings.dataFolder), { force: true });
    await this.#lock.release();
  }

  #writeStackFile(): void {
    if (!this.#complete || this.isStopping) return;
    this.#writing = this.#writing
      .then(() =>
        writeStackFile(this.#settings.dataFolder, {
          ...this.#plan.stackFile,
          processes: this.#supervisor.processIds(),
        }),
      )
      .catch((error) => {
        const shown = explained(error);
        say(`The stack file could not be written: ${messageOf(shown)}`);
      });
  }
}

function shownPath(path: string): string {
  const fromRoot = relative(root, path);
  return fromRoot.startsWith("..") ? path : fromRoot;
}

async function requireFreeSpace(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= freeBytesMin) return;
  const freeMegabytes = Math.floor((bavail * bsize) / 1_000_000);
  throw new StackError(
    `The disk is nearly full: ${freeMegabytes} MB are free in ${folder}, and the stack needs ${freeBytesMin / 1_000_000} MB. Free some space, or set STACK_DATA_DIR to a folder on another disk.`,
  );
}

/** Calls `onGone` when the process that started us was killed: nobody could press Ctrl-C any more. */
function watchParent(onGone: () => void): void {
  const parent = Number(environment().ORDER_SAGA_PARENT_PID);
  if (parent !== process.ppid) return;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    onGone();
  }, parentPollMs);
}

async function main(): Promise<number> {
  const { exit, samples, instances } = parseArguments(process.argv.slice(2));
  const settings = readStackSettings(environment(), root);
  const lock = await lockDataFolder(settings.dataFolder);
  let stack: Stack;
  try {
    stack = new Stack(settings, instances, lock);
  } catch (error) {
    await lock.release();
    throw error;
  }

  const asked = Promise.withResolvers<void>();
  let askedAtMs: number | undefined;
  const ask = (why: string) => {
    if (askedAtMs === undefined) {
      askedAtMs = performance.now();
      say(`${why}: ending everything in order …`);
      asked.resolve();
    } else if (performance.now() - askedAtMs > sameSignalMs) {
      say("Asked again: killing what is left.");
      process.exit(1);
    }
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => ask(signal));
  watchParent(() => ask("The process that started this is gone"));

  const work = async (): Promise<number> => {
    await stack.start(instances);
    const asExpected = samples ? await stack.placeSamples() : true;
    if (exit) {
      if (samples) say(`${asExpected ? "Every" : "Not every"} sample order ended as it should.`);
      return asExpected ? 0 : 1;
    }
    console.log(stack.describe());
    await asked.promise;
    return 0;
  };
  try {
    // Asked while it is starting: not an error, but not what was wanted either.
    return await Promise.race([work(), asked.promise.then(() => 0)]);
  } finally {
    await stack.stop();
    say("Everything has ended.");
  }
}

try {
  process.exit(await main());
} catch (error) {
  const shown = explained(error);
  if (shown instanceof ConfigError) console.error(`${shown.message}\n${usage}`);
  else console.error(shown instanceof StackError ? shown.message : shown);
  process.exit(shown instanceof ConfigError ? 2 : 1);
}
