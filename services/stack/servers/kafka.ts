import { existsSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { openAdmin } from "../../../relay/kafka/admin.ts";
import type { HostPort } from "../../kit/config.ts";
import { silentLogger } from "../../kit/log.ts";
import { StackError } from "../errors.ts";
import { brokerCounts, brokerPorts, instanceName, numbersOf, type StackSettings } from "../settings.ts";
import type { ProcessSpec } from "../supervisor.ts";
import { ensureDataFolder } from "./data-folder.ts";
import type { Programs } from "./downloads.ts";
import { brokerProperties, type KafkaListener } from "./kafka-properties.ts";

/** The same for all local stacks: the id matters only where clusters could meet. */
const clusterId = "b3JkZXItc2FnYS1sb2NhbA";

/** The last of several brokers to stop waits for its controllers' majority, which has gone: it has nothing left to do. */
const clusterStopTimeoutMs = 4_000;

/** Names of the data folders of all brokers that a stack may have. */
export const brokerFolders: readonly string[] = numbersOf(Math.max(...brokerCounts)).map((number) =>
  instanceName("kafka", number),
);

type BrokerPorts = ReturnType<typeof brokerPorts>[number];

/**
 * Each topic has a replica on every broker, and the metadata quorum has a vote of every broker, so data of one number of
 * brokers cannot be used with another.
 * @throws StackError if the data folder was made for another number of brokers.
 */
export function requireBrokersOfData({ dataFolder, brokers }: StackSettings): void {
  const found = brokersOfData(dataFolder);
  if (found === undefined || found === brokers) return;
  throw new StackError(
    `The data in ${dataFolder} belongs to ${found === 1 ? "one Kafka broker" : `${found} Kafka brokers`}, and another number cannot run on it. Start with --brokers ${found}, or remove the folder to start from nothing, or set STACK_DATA_DIR to another one.`,
  );
}

/** For how many brokers the data was made. The first broker's folder is made last, so without it the data is not complete. */
function brokersOfData(dataFolder: string): number | undefined {
  if (!hasFolder(dataFolder, "kafka")) return undefined;
  return brokerFolders.filter((name) => hasFolder(dataFolder, name)).length;
}

const hasFolder = (dataFolder: string, name: string) => existsSync(join(dataFolder, name));

/**
 * Formats the log directories if there are none. Returns how to run each broker on its own.
 * @param listenersOf further listeners of a broker, by its number.
 */
export async function prepareBrokers(
  settings: StackSettings,
  programs: Programs,
  listenersOf: (broker: number) => readonly KafkaListener[] = () => [],
): Promise<readonly ProcessSpec[]> {
  const [first, ...others] = brokerPorts(settings);
  if (first === undefined) throw new Error("A stack has at least one broker.");
  if (brokersOfData(settings.dataFolder) === undefined) {
    for (const name of brokerFolders) await rm(join(settings.dataFolder, name), { recursive: true, force: true });
  }
  const prepare = (broker: BrokerPorts) => prepareBroker(settings, programs, broker, listenersOf(broker.number));
  const prepared = await Promise.all(others.map(prepare));
  return [await prepare(first), ...prepared];
}

async function prepareBroker(
  settings: StackSettings,
  programs: Programs,
  broker: BrokerPorts,
  listeners: readonly KafkaListener[],
): Promise<ProcessSpec> {
  const { name, number } = broker;
  const folder = await ensureDataFolder(settings, {
    name,
    title: "Kafka",
    async createIn(draft) {
      const file = join(settings.dataFolder, `${name}.format.properties`);
      await writeFile(file, brokerProperties(settings, { number, folder: draft, listeners: [] }));
      return [...java(programs, ["-Xmx128m"]), ...["kafka.tools.StorageTool", "format", "-t", clusterId, "-c", file]];
    },
  });
  const propertiesFile = join(settings.dataFolder, `${name}.properties`);
  await writeFile(propertiesFile, brokerProperties(settings, { number, folder, listeners }));
  // Several brokers share the work and the machine's memory.
  const heap = settings.brokers === 1 ? "512m" : "256m";
  return {
    name,
    stage: "kafka",
    ...(settings.brokers === 1 ? {} : { stopTimeoutMs: clusterStopTimeoutMs }),
    command: [...java(programs, [`-Xms${heap}`, `-Xmx${heap}`]), "kafka.Kafka", propertiesFile],
    env: {},
    isReady: () => serves({ host: settings.host, port: broker.client }),
  };
}

/** Whether the broker has joined its cluster and serves clients. */
async function serves(address: HostPort): Promise<boolean> {
  // The client waits longer after each failed attempt to connect, so first check that the port is open.
  if (!(await accepts(address))) return false;
  const admin = await openAdmin({ brokers: [address], clientId: "stack", log: silentLogger });
  try {
    // Another broker may have answered.
    return (await admin.listBrokers()).some(({ port }) => port === address.port);
  } finally {
    await admin.close();
  }
}

async function accepts(address: HostPort): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(address.port, address.host);
  socket.once("connect", () => resolve(true));
  socket.once("error", () => resolve(false));
  const accepted = await promise;
  socket.destroy();
  return accepted;
}

function java(programs: Programs, heap: readonly string[]): readonly string[] {
  return [
    programs.java,
    ...heap,
    // For small brokers on two cores, the serial collector starts fastest and takes least memory.
    "-XX:+UseSerialGC",
    // The optimising compiler costs more than half of the CPU of a start (6 s instead of 3.6) and pays off after hours.
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-cp",
    join(programs.kafkaLibraryFolder, "*"),
  ];
}
