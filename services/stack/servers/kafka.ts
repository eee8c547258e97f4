import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { openAdmin } from "../../../relay/kafka/admin.ts";
import type { HostPort } from "../../kit/config.ts";
import { silentLogger } from "../../kit/log.ts";
import type { StackSettings } from "../settings.ts";
import type { ProcessSpec } from "../supervisor.ts";
import { ensureDataFolder } from "./data-folder.ts";
import type { Programs } from "./downloads.ts";

/** The same for all local stacks: the id matters only where clusters could meet. */
const clusterId = "b3JkZXItc2FnYS1sb2NhbA";
const retentionHours = 7 * 24;
const messageBytesMax = 1_048_576;

/** A further listener, for clients behind a proxy: one that connects to `port` is sent on to `advertisedPort`. */
export interface KafkaListener {
  /** Capital letters and underscores. */
  readonly name: string;
  readonly port: number;
  readonly advertisedPort: number;
}

/** Formats the log directory if there is none. Returns how to run the broker on it. */
export async function prepareKafka(
  settings: StackSettings,
  programs: Programs,
  listeners: readonly KafkaListener[] = [],
): Promise<ProcessSpec> {
  const folder = await ensureDataFolder(settings, {
    name: "kafka",
    title: "Kafka",
    async createIn(draft) {
      const file = join(settings.dataFolder, "kafka.format.properties");
      await writeFile(file, properties(settings, draft));
      return [...java(programs, ["-Xmx128m"]), ...["kafka.tools.StorageTool", "format", "-t", clusterId, "-c", file]];
    },
  });
  const propertiesFile = join(settings.dataFolder, "kafka.properties");
  await writeFile(propertiesFile, properties(settings, folder, listeners));
  const broker = { host: settings.host, port: settings.ports.kafka };
  return {
    name: "kafka",
    stage: "kafka",
    command: [...java(programs, ["-Xms512m", "-Xmx512m"]), "kafka.Kafka", propertiesFile],
    env: {},
    async isReady() {
      // The client waits longer after each failed attempt to connect, so first check that the port is open.
      if (!(await accepts(broker))) return false;
      const admin = await openAdmin({ brokers: [broker], clientId: "stack", log: silentLogger });
      try {
        await admin.listTopics();
        return true;
      } finally {
        await admin.close();
      }
    },
  };
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
    // For one small broker on two cores, the serial collector starts fastest and takes least memory.
    "-XX:+UseSerialGC",
    // The optimising compiler costs more than half of the CPU of a start (6 s instead of 3.6) and pays off after hours.
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-cp",
    join(programs.kafkaLibraryFolder, "*"),
  ];
}

/** Broker and controller in one process that listens on this machine only. */
function properties(settings: StackSettings, folder: string, further: readonly KafkaListener[] = []): string {
  const broker = `${settings.host}:${settings.ports.kafka}`;
  const controller = `${settings.host}:${settings.ports.kafkaController}`;
  const values = {
    "process.roles": "broker,controller",
    "node.id": 1,
    // Set here instead of in the log directory, so that the ports may change between two runs.
    "controller.quorum.voters": `1@${controller}`,
    listeners: [
      `PLAINTEXT://${broker}`,
      `CONTROLLER://${controller}`,
      ...further.map(({ name, port }) => `${name}://${settings.host}:${port}`),
    ].join(","),
    "advertised.listeners": [
      `PLAINTEXT://${broker}`,
      ...further.map(({ name, advertisedPort }) => `${name}://${settings.host}:${advertisedPort}`),
    ].join(","),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": ["PLAINTEXT", "CONTROLLER", ...further.map(({ name }) => name)]
      .map((name) => `${name}:PLAINTEXT`)
      .join(","),
    "log.dirs": folder,
    "auto.create.topics.enable": false,
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 3,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 3,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 3,
    // After a kill -9, the controller refuses the new broker until the old session expires, and the broker asks every
    // 2 s. With the default of 9 s it took 15 s to be back. Here the session expires just before the second attempt.
    "broker.session.timeout.ms": 1_800,
    "broker.heartbeat.interval.ms": 300,
    // The first members of a group need not wait for others: the local stack starts them together.
    "group.initial.rebalance.delay.ms": 0,
    "log.retention.hours": retentionHours,
    "message.max.bytes": messageBytesMax,
    "num.partitions": 12,
  };
  return `${Object.entries(values)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n")}\n`;
}
