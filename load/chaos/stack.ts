/**
 * The system as `npm start` runs it, from nothing and with data of its own, but with a proxy on every way between one of
 * our processes and a server.
 */
import { readFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { sagaTopic } from "../../proto/event-table.ts";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { openDatabase } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import type { AuditSources } from "../../services/ops/audit/audit.ts";
import { say } from "../../services/stack/console.ts";
import { requireFreePorts } from "../../services/stack/free-ports.ts";
import { lockDataFolder } from "../../services/stack/lock.ts";
import { stopOrphans } from "../../services/stack/orphans.ts";
import { planProcesses } from "../../services/stack/processes.ts";
import { provisionDatabases, provisionTopics } from "../../services/stack/provision.ts";
import { ensurePrograms } from "../../services/stack/servers/downloads.ts";
import { type KafkaListener, prepareKafka } from "../../services/stack/servers/kafka.ts";
import { prepareMariadb } from "../../services/stack/servers/mariadb.ts";
import { databaseAdminUrl, databaseUrl, type StackSettings } from "../../services/stack/settings.ts";
import { type ProcessSpec, Supervisor } from "../../services/stack/supervisor.ts";
import { mountSmallDisk, type SmallDisk } from "./disk.ts";
import { type FaultyGateway, serveFaultyGateway } from "./faulty-gateway.ts";
import { TcpProxy } from "./proxy.ts";

/** Our own processes: what a proxy is put before. */
export const clients = ["order", "inventory", "payment", "relay"] as const;
export type Client = (typeof clients)[number];
export const consumers = ["order", "inventory", "payment"] as const;
export type Consumer = (typeof consumers)[number];
export const servers = ["mariadb", "kafka", "gateway"] as const;
export type Server = (typeof servers)[number];
export type ProcessName = Client | Server;

/** A way from a process to a server. */
export type LinkName = `${Client} → mariadb` | `${Client} → kafka` | "payment → gateway";

/** Short: what is under way when something stops for long is given up, and compensated. */
export const orderDeadlineMs = 10_000;

const ones = { order: 1, inventory: 1, payment: 1, relay: 1 };
const twos = { order: 2, inventory: 2, payment: 2, relay: 1 };
/** Proxies, listeners of the broker's and the faulty gateway, from here on above the broker's own port. */
const firstPortAboveKafka = 10;
const pollMs = 50;
/** Lines at the end of a log; the process that came after may have written some of them. */
const lastWords = 10;
const startTimeoutMs = 60_000;

export interface ChaosStack {
  /** Where Order is called: no proxy is on this way. */
  readonly orderUrl: string;
  readonly gatewayUrl: string;
  /** Databases, topic and ledger, each by a way of its own. */
  readonly sources: AuditSources;
  readonly admin: KafkaAdmin;
  readonly kafka: KafkaOptions;
  readonly faultyGateway: FaultyGateway;
  /** The port of the real gateway, and of the faulty one. */
  readonly gatewayPorts: { readonly real: number; readonly faulty: number };
  /** The database's disk, or why it has none of its own. */
  readonly disk: SmallDisk | string;
  link(name: LinkName): TcpProxy;
  /** @throws Error when it does not run at the moment. */
  pidOf(name: string): number;
  /** Sends a signal that may end the process: that it is started again is no surprise then. */
  signal(name: ProcessName, signal: NodeJS.Signals): void;
  /** Resolves to the new process id, once the process runs again and does its work. @throws Error after a minute. */
  untilRestarted(name: ProcessName, formerPid: number): Promise<number>;
  /** Resolves once every process does its work. @throws Error after a minute. */
  untilReady(): Promise<void>;
  /** Runs a second instance beside the first. */
  startSecond(name: Consumer): Promise<void>;
  stopSecond(name: Consumer): Promise<void>;
  /** A figure of a process, summed over the label sets that contain `labels`. */
  metric(instance: string, name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
  /** How large a process's log is now. */
  logSize(name: ProcessName): number;
  /** What a process has logged since. */
  logSince(name: ProcessName, size: number): string;
  /** Notes that a process may end by itself from now on, or may no more. */
  mayDie(name: ProcessName, may: boolean): void;
  /** Ends that nobody caused, and that no process is meant to come to. */
  surprises(): readonly string[];
  /** How often a service exited since its Kafka client had given up: then it is to be started again. */
  consumersStopped(): number;
  stop(): Promise<void>;
}

/** Starts it all. What an earlier run left in the data folder is removed first. */
export async function startChaosStack(settings: StackSettings): Promise<ChaosStack> {
  const { host, ports, dataFolder } = settings;
  const lock = await lockDataFolder(dataFolder);
  const closing: (() => Promise<unknown>)[] = [() => lock.release()];
  const stop = async () => {
    for (let close = closing.pop(); close !== undefined; close = closing.pop()) await close().catch(() => undefined);
  };
  try {
    return await start();
  } catch (error) {
    await stop();
    throw error;
  }

  async function start(): Promise<ChaosStack> {
    await stopOrphans(dataFolder);
    const diskFolder = join(dataFolder, "disk");
    const disk = await mountSmallDisk(diskFolder);
    if (typeof disk !== "string") closing.push(() => disk.unmount());
    for (const name of ["disk/mariadb", "disk/logs", "kafka", "gateway", "logs"]) {
      await rm(join(dataFolder, name), { recursive: true, force: true });
    }
    await requireFreePorts(settings, twos);
    const programs = await ensurePrograms(settings.cacheFolder);

    let nextPort = ports.kafka + firstPortAboveKafka;
    const links = new Map<LinkName, TcpProxy>();
    const openLink = async (name: LinkName, targetPort: number) => {
      const proxy = await TcpProxy.open({ name, host, port: nextPort++, targetPort });
      closing.push(async () => proxy.close());
      links.set(name, proxy);
      return proxy;
    };
    const listeners: KafkaListener[] = [];
    for (const client of clients) {
      await openLink(`${client} → mariadb`, ports.mariadb);
      const port = nextPort++;
      // The broker tells its clients where to connect: what comes through a proxy is sent back to the same proxy.
      const proxy = await openLink(`${client} → kafka`, port);
      listeners.push({ name: client.toUpperCase(), port, advertisedPort: proxy.port });
    }
    await openLink("payment → gateway", ports.gateway);
    const gatewayUrl = `http://${host}:${ports.gateway}`;
    const faultyPort = nextPort++;
    const faultyGateway = serveFaultyGateway({ host, port: faultyPort, gatewayUrl });
    closing.push(() => faultyGateway.close());

    const link = (name: LinkName): TcpProxy => {
      const proxy = links.get(name);
      if (proxy === undefined) throw new Error(`There is no way ${name}.`);
      return proxy;
    };
    /** The same process, told to go by the proxies. */
    const proxied = (spec: ProcessSpec, client: Client): ProcessSpec => {
      const ways = servers.flatMap((server) => {
        const name = `${client} → ${server}` as LinkName;
        return links.has(name) ? [[`${host}:${ports[server]}`, `${host}:${link(name).port}`] as const] : [];
      });
      const env = Object.entries(spec.env).map(([name, value]) => [
        name,
        ways.reduce((changed, [from, to]) => changed.replaceAll(from, to), value),
      ]);
      return { ...spec, env: { ...Object.fromEntries(env), ORDER_DEADLINE_MS: String(orderDeadlineMs) } };
    };

    const specs = new Map<string, ProcessSpec>();
    const surprises: string[] = [];
    const expected = new Set<number>();
    const mayDie = new Set<string>();
    const deliberate = new Set<string>();
    let consumersStopped = 0;
    let running: Readonly<Record<string, number>> = {};
    const logFile = (name: string) => join(dataFolder, "logs", `${name}.log`);
    /** Where its Kafka client does not start again by itself, a service says so and exits, as it is meant to. */
    const gaveUp = (name: string) =>
      readFileSync(logFile(name), "utf8")
        .trimEnd()
        .split("\n")
        .slice(-lastWords)
        .some((line) => line.includes('"msg":"the consumer has stopped"'));
    const supervisor = new Supervisor({
      root: settings.root,
      dataFolder,
      logFolder: join(dataFolder, "logs"),
      onChange() {
        const now = supervisor.processIds();
        for (const [name, pid] of Object.entries(running)) {
          if (now[name] === pid || expected.has(pid) || mayDie.has(name) || deliberate.has(name)) continue;
          if (gaveUp(name)) consumersStopped++;
          else surprises.push(`${name} (PID ${pid}) ended by itself`);
        }
        running = now;
      },
    });
    closing.push(() => supervisor.stopAll());
    const run = async (spec: ProcessSpec) => {
      specs.set(spec.name, spec);
      await supervisor.start(spec);
    };
    const plan = planProcesses(settings, ones);
    const seconds = planProcesses(settings, twos).others.filter(({ name }) => name.endsWith("-2"));
    say("Starting MariaDB, Kafka and the payment gateway, and the proxies before them …");
    const mariadb = async () => {
      await run(await prepareMariadb({ ...settings, dataFolder: diskFolder }, programs));
      await provisionDatabases(databaseAdminUrl(settings));
    };
    const kafka = async () => {
      await run(await prepareKafka(settings, programs, listeners));
      await provisionTopics([{ host, port: ports.kafka }], 1);
    };
    await Promise.all([mariadb(), kafka(), run(plan.gateway)]);
    say("Starting the services and the relay …");
    await Promise.all(plan.others.map((spec) => run(proxied(spec, spec.name as Client))));

    const open = (service: Consumer) => {
      const database = openDatabase({ url: databaseUrl(settings, service), connectionsMax: 4 });
      closing.push(() => database.close());
      return database;
    };
    const databases = { order: open("order"), inventory: open("inventory"), payment: open("payment") };
    const kafkaOptions: KafkaOptions = {
      brokers: [{ host, port: ports.kafka }],
      clientId: "chaos",
      log: silentLogger,
    };
    const admin = await openAdmin(kafkaOptions);
    closing.push(() => admin.close());

    const pidOf = (name: string): number => {
      const pid = supervisor.processIds()[name];
      if (pid === undefined) throw new Error(`${name} does not run.`);
      return pid;
    };
    const isReady = async (name: string) =>
      (await specs
        .get(name)
        ?.isReady()
        .catch(() => false)) === true;
    const untilWorks = async (what: string, works: () => Promise<boolean>) => {
      const deadlineMs = performance.now() + startTimeoutMs;
      while (!(await works())) {
        if (performance.now() > deadlineMs) throw new Error(`${what} within ${startTimeoutMs / 1_000} s.`);
        await sleep(pollMs);
      }
    };

    return {
      orderUrl: plan.stackFile.order.http,
      gatewayUrl,
      sources: { databases, kafka: kafkaOptions, topic: sagaTopic, gatewayUrl },
      admin,
      kafka: kafkaOptions,
      faultyGateway,
      gatewayPorts: { real: ports.gateway, faulty: faultyPort },
      disk,
      link,
      pidOf,
      signal(name, signal) {
        const pid = pidOf(name);
        if (signal !== "SIGSTOP" && signal !== "SIGCONT") expected.add(pid);
        process.kill(pid, signal);
      },
      async untilRestarted(name, formerPid) {
        await untilWorks(`${name} was not started again`, async () => {
          const pid = supervisor.processIds()[name];
          return pid !== undefined && pid !== formerPid && (await isReady(name));
        });
        return pidOf(name);
      },
      async untilReady() {
        for (const name of [...servers, ...clients]) {
          await untilWorks(`${name} was not ready`, () => isReady(name));
        }
      },
      async startSecond(name) {
        const spec = seconds.find((it) => it.name === `${name}-2`);
        if (spec === undefined) throw new Error(`There is no second ${name}.`);
        await run(proxied(spec, name));
      },
      async stopSecond(name) {
        deliberate.add(`${name}-2`);
        await supervisor.stop(`${name}-2`);
        deliberate.delete(`${name}-2`);
      },
      async metric(instance, name, labels = {}) {
        const url = specs.get(instance)?.env.HEALTH_PORT;
        const response = await fetch(`http://${host}:${url}/metrics`, { signal: AbortSignal.timeout(2_000) });
        return sumOf(await response.text(), name, labels);
      },
      logSize: (name) => readFileSync(logFile(name)).length,
      logSince: (name, size) => readFileSync(logFile(name)).subarray(size).toString(),
      mayDie(name, may) {
        if (may) mayDie.add(name);
        else mayDie.delete(name);
      },
      surprises: () => [...surprises],
      consumersStopped: () => consumersStopped,
      stop,
    };
  }
}

/** Whether a process is stopped by a signal, by what the kernel says of it. */
export async function isFrozen(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
}

/** Adds up a metric's samples in Prometheus' text format. */
export function sumOf(text: string, name: string, labels: Readonly<Record<string, string>>): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  let sum = 0;
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match?.[1] !== name || !wanted.every((it) => match[2]?.includes(it))) continue;
    sum += Number(match[3]);
  }
  return sum;
}
