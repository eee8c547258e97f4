/** What producers, consumers and admin clients share: how they connect, and where the client library logs. */
import { createConnection } from "node:net";
import {
  CompressionCodecs,
  CompressionTypes,
  type ISocketFactory,
  Kafka,
  type KafkaConfig,
  type LogEntry,
  logLevel,
} from "kafkajs";
import type { HostPort } from "../../services/kit/config.ts";
import type { Logger } from "../../services/kit/log.ts";
import { codecs } from "./codecs.ts";

// By itself kafkajs reads gzip only. Its table of codecs is shared by all its clients.
CompressionCodecs[CompressionTypes.GZIP] = () => codecs.GZIP;
CompressionCodecs[CompressionTypes.Snappy] = () => codecs.Snappy;
CompressionCodecs[CompressionTypes.LZ4] = () => codecs.LZ4;
CompressionCodecs[CompressionTypes.ZSTD] = () => codecs.ZSTD;

/** How to reach the brokers. */
export interface KafkaOptions {
  readonly brokers: readonly HostPort[];
  /** Shown in the broker's logs. */
  readonly clientId: string;
  readonly log: Logger;
}

/** A kafkajs client for these brokers. `settings` override the defaults. */
export function kafkaClient(options: KafkaOptions, settings: Partial<KafkaConfig> = {}): Kafka {
  return new Kafka({
    brokers: options.brokers.map(({ host, port }) => `${host}:${port}`),
    clientId: options.clientId,
    connectionTimeout: 1_000,
    requestTimeout: 5_000,
    logLevel: logLevel.WARN,
    logCreator: () => (entry) => logEntry(options.log, entry),
    socketFactory,
    ...settings,
  });
}

/** Like kafkajs's own socket factory, but with Nagle's algorithm off, so small requests do not wait for a full segment. */
export const socketFactory: ISocketFactory = ({ host, port, onConnect }) => {
  const socket = createConnection({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 });
  socket.on("connect", onConnect);
  return socket;
};

function logEntry(log: Logger, { log: { message, ...entry } }: LogEntry): void {
  // A warning without the stack: kafkajs either retries the error or throws it to its caller, who logs it as an error.
  log.warn({ kafka: { error: entry.error, broker: entry.broker, groupId: entry.groupId } }, message);
}
