/** Sends records, with a time limit on each send: kafkajs has none that holds while a broker is unreachable. */
import type { Socket } from "node:net";
import type { KafkaConfig, Producer } from "kafkajs";
import type { EventRecord } from "../../proto/envelope.ts";
import { endsWithin, withDeadline } from "../../services/kit/deadline.ts";
import { hedge } from "../../services/kit/hedge.ts";
import { type KafkaOptions, kafkaClient, socketFactory } from "./client.ts";
import { BrokerTimeoutError } from "./errors.ts";
import { partitionOf } from "./partitioner.ts";

/** Sends records. Await each call before the next. After an error, close this producer and open another. */
export interface RecordProducer {
  /**
   * Resolves once all in-sync replicas have the records. If one partition refuses its records it throws, although those of
   * other partitions are on the topic.
   * @throws Error after `timeoutMs` at the latest; the records may still reach the topic.
   */
  send(topic: string, records: readonly EventRecord[]): Promise<void>;
  /** How many partitions the topic has; undefined until a send has read it, even one that failed. */
  partitionsOf(topic: string): number | undefined;
  /** Resolves within about a second, whether or not the broker answers. */
  close(): Promise<void>;
}

const disconnectTimeoutMs = 1_000;
/** A broker that has not answered by then is joined by the next one. */
const nextBrokerAfterMs = 300;

export type ProducerOptions = KafkaOptions & {
  /** The time limit for connecting to a broker, and for each send. */
  readonly timeoutMs: number;
};

/**
 * Connects a producer by any of the brokers. kafkajs alone would begin with the first one each time, whether or not it is
 * gone or silent.
 * @throws the first broker's error if none answers.
 */
export async function openProducer(options: ProducerOptions): Promise<RecordProducer> {
  const connectBy = (index: number) => () =>
    connectProducer({ ...options, brokers: [...options.brokers.slice(index), ...options.brokers.slice(0, index)] });
  const others = options.brokers.keys().drop(1).map(connectBy);
  return await hedge([connectBy(0), ...others], nextBrokerAfterMs, (producer) => void producer.close());
}

async function connectProducer(options: ProducerOptions): Promise<RecordProducer> {
  const { timeoutMs } = options;
  // No retries here: the caller decides whether and what to send again. kafkajs retries connecting by the client's
  // setting and sending by the producer's, so both get it.
  const retry = { retries: 0 };
  const sockets = new Set<Socket>();
  const settings: Partial<KafkaConfig> = {
    retry,
    // Each call has its deadline below. kafkajs's own check would look at every connection 10 times a second, which is
    // half of what an idle relay costs.
    enforceRequestTimeout: false,
    socketFactory(target) {
      const socket = socketFactory(target);
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      return socket;
    },
  };
  const partitions = new Map<string, number>();
  const producer: Producer = kafkaClient(options, settings).producer({
    allowAutoTopicCreation: false,
    createPartitioner:
      () =>
      ({ topic, message, partitionMetadata }) => {
        partitions.set(topic, partitionMetadata.length);
        return partitionOf(String(message.key), partitionMetadata.length);
      },
    // kafkajs's idempotent producer does not recover from a refused record: its sequence numbers are wrong from then on.
    // Sending one batch at a time keeps the order without them.
    idempotent: false,
    maxInFlightRequests: 1,
    retry,
  });
  const close = async () => {
    // disconnect() waits for the answers to all requests, which may never come.
    await endsWithin(producer.disconnect(), disconnectTimeoutMs).catch(() => undefined);
    for (const socket of sockets) socket.destroy();
  };
  try {
    const timeout = () => new BrokerTimeoutError("Connecting to the broker", timeoutMs);
    await withDeadline(producer.connect(), timeoutMs, timeout);
  } catch (error) {
    void close();
    throw error;
  }
  const sendTimeout = () => new BrokerTimeoutError("Sending", timeoutMs);
  return {
    async send(topic, records) {
      const messages = records.map(({ key, value, headers }) => ({
        key,
        // A view, not a copy.
        value: Buffer.from(value.buffer, value.byteOffset, value.byteLength),
        headers,
      }));
      await withDeadline(producer.send({ topic, acks: -1, timeout: timeoutMs, messages }), timeoutMs, sendTimeout);
    },
    partitionsOf: (topic) => partitions.get(topic),
    close,
  };
}
