import { brokerPorts, type StackSettings } from "../settings.ts";

const retentionHours = 7 * 24;
const messageBytesMax = 1_048_576;

/** A further listener, for clients behind a proxy: one that connects to `port` is sent on to `advertisedPort`. */
export interface KafkaListener {
  /** Capital letters, digits and underscores. */
  readonly name: string;
  readonly port: number;
  readonly advertisedPort: number;
}

/** Of three copies, an acknowledged record has two at least, so the loss of one broker neither loses nor stops anything. */
export function insyncReplicasMin(replication: number): number {
  return replication >= 3 ? 2 : 1;
}

/** The settings of one broker: a process that is broker and controller in one and listens on this machine only. */
export function brokerProperties(
  settings: StackSettings,
  {
    number,
    folder,
    listeners,
  }: { readonly number: number; readonly folder: string; readonly listeners: readonly KafkaListener[] },
): string {
  const all = brokerPorts(settings);
  const [own] = all.filter((it) => it.number === number);
  const replication = settings.brokers;
  const addressOf = (port: number | undefined) => `${settings.host}:${port}`;
  const values = {
    "process.roles": "broker,controller",
    "node.id": number,
    // Set here instead of in the log directory, so that the ports may change between two runs.
    "controller.quorum.voters": all.map((it) => `${it.number}@${addressOf(it.controller)}`).join(","),
    listeners: [
      `PLAINTEXT://${addressOf(own?.client)}`,
      `CONTROLLER://${addressOf(own?.controller)}`,
      ...listeners.map(({ name, port }) => `${name}://${addressOf(port)}`),
    ].join(","),
    "advertised.listeners": [
      `PLAINTEXT://${addressOf(own?.client)}`,
      ...listeners.map(({ name, advertisedPort }) => `${name}://${addressOf(advertisedPort)}`),
    ].join(","),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": ["PLAINTEXT", "CONTROLLER", ...listeners.map(({ name }) => name)]
      .map((name) => `${name}:PLAINTEXT`)
      .join(","),
    "log.dirs": folder,
    "auto.create.topics.enable": false,
    ...replicationOf(replication),
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

/** Kafka's own topics, such as the committed offsets, are as safe as the topics of the saga. */
function replicationOf(replication: number): Readonly<Record<string, number>> {
  const insync = insyncReplicasMin(replication);
  return {
    "default.replication.factor": replication,
    "min.insync.replicas": insync,
    "offsets.topic.replication.factor": replication,
    "offsets.topic.num.partitions": 3,
    "transaction.state.log.replication.factor": replication,
    "transaction.state.log.min.isr": insync,
    "transaction.state.log.num.partitions": 3,
    "share.coordinator.state.topic.replication.factor": replication,
    "share.coordinator.state.topic.min.isr": insync,
    "share.coordinator.state.topic.num.partitions": 3,
  };
}
