/**
 * The system as `npm start` runs it, started from nothing with data of its own, and with a proxy on every path between
 * one of our processes and a server.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type ServiceName, sagaTopic } from "../../proto/event-table.ts";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { openDatabase } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import type { AuditSources } from "../../services/ops/audit/reader.ts";
import { say } from "../../services/stack/console.ts";
import { requireFreePorts } from "../../services/stack/free-ports.ts";
import { lockDataFolder } from "../../services/stack/lock.ts";
import { stopOrphans } from "../../services/stack/orphans.ts";
import { planProcesses } from "../../services/stack/processes.ts";
import { provisionDatabases, provisionTopics } from "../../services/stack/provision.ts";
import { ensurePrograms } from "../../services/stack/servers/downloads.ts";
import { brokerFolders, prepareBrokers } from "../../services/stack/servers/kafka.ts";
import type { KafkaListener } from "../../services/stack/servers/kafka-properties.ts";
import { prepareMariadb } from "../../services/stack/servers/mariadb.ts";
import { byService } from "../../services/stack/services.ts";
import {
  brokerAddresses,
  brokerPorts,
  databaseAdminUrl,
  databaseUrl,
  type Instances,
  instanceName,
  type StackSettings,
} from "../../services/stack/settings.ts";
import type { ProcessSpec } from "../../services/stack/supervisor.ts";
import { untilInSync } from "./cluster.ts";
import { mountSmallDisk, type SmallDisk } from "./disk.ts";
import { type FaultyGateway, serveFaultyGateway } from "./faulty-gateway.ts";
import { Links } from "./links.ts";
import { ChaosProcesses } from "./processes.ts";
import { type Broker, type Client, roles } from "./topology.ts";

/** Short, so that orders pass their deadline and are compensated while a process is frozen or away. */
export const orderDeadlineMs = 10_000;

/** Proxies, extra listeners of the brokers and the faulty gateway get ports from this many above the last controller's. */
const firstPortAboveKafka = 9;

/** The running system under test. */
export interface ChaosStack {
  /** Where clients call each instance of Order. There is no proxy on these paths. */
  readonly orderUrls: readonly string[];
  readonly gatewayUrl: string;
  /** Databases, topic and payment gateway, reached without the proxies. */
  readonly sources: AuditSources;
  readonly admin: KafkaAdmin;
  readonly kafka: KafkaOptions;
  readonly links: Links;
  readonly processes: ChaosProcesses;
  readonly faultyGateway: FaultyGateway;
  /** The ports of the fake gateway and of the faulty gateway before it. */
  readonly gatewayPorts: { readonly real: number; readonly faulty: number };
  /** The database's disk, or the reason why it has no disk of its own. */
  readonly disk: SmallDisk | string;
  /** All brokers: the one with the id n is the n-th. */
  readonly brokers: readonly Broker[];
  /** How many instances of each process run. */
  readonly instances: Instances;
  /**
   * Starts one more instance of a service and returns its name. `processes.stop` ends it. It shares the proxies of the
   * first instance.
   */
  startSpare(service: ServiceName): Promise<string>;
  /** The name that {@link startSpare} gives it. */
  spareName(service: ServiceName): string;
  /** Resolves once every replica of every partition has every acknowledged record. @throws Error after a minute. */
  untilInSync(): Promise<void>;
  stop(): Promise<void>;
}

/** Registers what is to be closed when the stack stops; the last one registered is closed first. */
type OnStop = (close: () => Promise<unknown>) => void;

/** Starts the system. Removes what an earlier run left in the data folder. */
export async function startChaosStack(settings: StackSettings, instances: Instances): Promise<ChaosStack> {
  const lock = await lockDataFolder(settings.dataFolder);
  const closing: (() => Promise<unknown>)[] = [() => lock.release()];
  const stop = async () => {
    for (let close = closing.pop(); close !== undefined; close = closing.pop()) await close().catch(() => undefined);
  };
  try {
    return { ...(await start(settings, instances, (close) => closing.push(close))), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(settings: StackSettings, instances: Instances, onStop: OnStop): Promise<Omit<ChaosStack, "stop">> {
  const { host, ports } = settings;
  // With a spare instance of each service, which single faults start.
  const planned = { ...instances, ...byService((service) => instances[service] + 1) };
  await stopOrphans(settings.dataFolder);
  const diskFolder = join(settings.dataFolder, "disk");
  const disk = await prepareFolders(settings, diskFolder, onStop);
  await requireFreePorts(settings, planned);

  let nextPort = Math.max(...brokerPorts(settings).map(({ controller }) => controller)) + firstPortAboveKafka;
  const takePort = () => nextPort++;
  const links = new Links(settings, instances);
  onStop(async () => links.close());
  const listenersOf = await links.open(takePort);
  const gatewayUrl = `http://${host}:${ports.gateway}`;
  const gatewayPorts = { real: ports.gateway, faulty: takePort() };
  const faultyGateway = serveFaultyGateway({ host, port: gatewayPorts.faulty, gatewayUrl });
  onStop(() => faultyGateway.close());

  const processes = new ChaosProcesses(settings);
  onStop(() => processes.stopAll());
  const plan = planProcesses(settings, planned);
  await startServers({ settings, processes, diskFolder, listenersOf, gateway: plan.gateway });
  const startClient = async (name: string, client: Client) => {
    const spec = plan.others.find((it) => it.name === name);
    if (spec === undefined) throw new Error(`There is no process ${name}.`);
    const { env, ...rest } = links.reroute(spec, client);
    await processes.start({ ...rest, env: { ...env, ORDER_DEADLINE_MS: String(orderDeadlineMs) } });
  };
  const spareName = (service: ServiceName) => instanceName(service, planned[service]);
  say("Starting the services and the relay …");
  await Promise.all(roles.flatMap((role) => links.clientsOf(role).map((client) => startClient(client, client))));

  const sources = openSources(settings, gatewayUrl, onStop);
  const admin = await openAdmin(sources.kafka);
  onStop(() => admin.close());
  return {
    orderUrls: links.clientsOf("order").flatMap((name) => plan.stackFile[name]?.http ?? []),
    gatewayUrl,
    sources,
    admin,
    kafka: sources.kafka,
    links,
    processes,
    faultyGateway,
    gatewayPorts,
    disk,
    brokers: brokerPorts(settings).map(({ name }) => name as Broker),
    instances,
    spareName,
    async startSpare(service) {
      await startClient(spareName(service), service);
      return spareName(service);
    },
    untilInSync: () => untilInSync(sources.kafka, settings.brokers),
  };
}

/** Empties the data folder and mounts the database's disk in it. */
async function prepareFolders(
  { dataFolder }: StackSettings,
  diskFolder: string,
  onStop: OnStop,
): Promise<SmallDisk | string> {
  const disk = await mountSmallDisk(diskFolder);
  if (typeof disk !== "string") onStop(() => disk.unmount());
  for (const name of ["disk/mariadb", "disk/logs", ...brokerFolders, "gateway", "logs"]) {
    await rm(join(dataFolder, name), { recursive: true, force: true });
  }
  return disk;
}

/** Starts the database on its small disk, the broker with a listener for each proxy, and the payment gateway. */
async function startServers(options: {
  readonly settings: StackSettings;
  readonly processes: ChaosProcesses;
  readonly diskFolder: string;
  readonly listenersOf: (broker: number) => readonly KafkaListener[];
  readonly gateway: ProcessSpec;
}): Promise<void> {
  const { settings, processes } = options;
  const programs = await ensurePrograms(settings.cacheFolder);
  say("Starting MariaDB, Kafka and the payment gateway, with proxies before them …");
  const mariadb = async () => {
    await processes.start(await prepareMariadb({ ...settings, dataFolder: options.diskFolder }, programs));
    await provisionDatabases(databaseAdminUrl(settings));
  };
  const kafka = async () => {
    const brokers = await prepareBrokers(settings, programs, options.listenersOf);
    await Promise.all(brokers.map((spec) => processes.start(spec)));
    await provisionTopics(brokerAddresses(settings), settings.brokers);
  };
  await Promise.all([mariadb(), kafka(), processes.start(options.gateway)]);
}

function openSources(settings: StackSettings, gatewayUrl: string, onStop: OnStop): AuditSources {
  const open = (service: ServiceName) => {
    const database = openDatabase({ url: databaseUrl(settings, service), connectionsMax: 4 });
    onStop(() => database.close());
    return database;
  };
  return {
    databases: byService(open),
    kafka: {
      brokers: brokerAddresses(settings),
      clientId: "chaos",
      log: silentLogger,
    },
    topic: sagaTopic,
    gatewayUrl,
  };
}
