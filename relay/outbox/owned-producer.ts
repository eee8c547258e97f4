import type { EventRecord } from "../../proto/envelope.ts";
import { producerErrorOf } from "../kafka/errors.ts";
import type { RecordProducer } from "../kafka/producer.ts";
import type { RelayMetrics } from "./metrics.ts";
import type { Ownership } from "./ownership.ts";

/** This process no longer owns the source. Nothing failed; it only has to stop sending. */
export class OwnershipLostError extends Error {
  override readonly name = "OwnershipLostError";
}

export interface OwnedProducerOptions {
  readonly source: string;
  readonly ownership: Pick<Ownership, "isFresh">;
  /** Connects a producer with the time limit `sendTimeoutMs` (ownership-times.ts). */
  readonly openProducer: () => Promise<RecordProducer>;
  readonly metrics: RelayMetrics;
}

/** The source's producer: it sends only while this process owns the source, and a failed send replaces the connection. */
export class OwnedProducer {
  readonly #options: OwnedProducerOptions;
  #producer: RecordProducer | undefined;
  /** By topic, as the last failed send has read it. */
  readonly #partitions = new Map<string, number>();

  constructor(options: OwnedProducerOptions) {
    this.#options = options;
  }

  /** Connects, unless connected. @throws what `openProducer` throws. */
  async connect(): Promise<RecordProducer> {
    try {
      this.#producer ??= await this.#options.openProducer();
      return this.#producer;
    } catch (error) {
      this.#countError(error);
      throw error;
    }
  }

  /** @throws OwnershipLostError, with nothing sent. After any other error the records may be on the topic. */
  async send(topic: string, records: readonly EventRecord[]): Promise<void> {
    const producer = await this.connect();
    // Checked last, because everything before it may take time.
    this.#requireOwnership();
    try {
      await producer.send(topic, records);
    } catch (error) {
      this.#countError(error);
      const partitions = producer.partitionsOf(topic);
      if (partitions !== undefined) this.#partitions.set(topic, partitions);
      // One of its requests may still be in flight.
      void producer.close();
      this.#producer = undefined;
      throw error;
    }
  }

  /** How many partitions the topic has, after a send that failed; undefined if it failed before it had read that. */
  partitionsOf(topic: string): number | undefined {
    return this.#partitions.get(topic);
  }

  /**
   * Sends on a connection of its own, so that it neither waits for other sends nor fails with them. Slow: only for failures.
   * @throws like {@link send}
   */
  async sendAlone(topic: string, records: readonly EventRecord[]): Promise<void> {
    let producer: RecordProducer | undefined;
    try {
      producer = await this.#options.openProducer();
      this.#requireOwnership();
      await producer.send(topic, records);
    } catch (error) {
      if (!(error instanceof OwnershipLostError)) this.#countError(error);
      throw error;
    } finally {
      void producer?.close();
    }
  }

  async close(): Promise<void> {
    await this.#producer?.close();
  }

  #requireOwnership(): void {
    if (!this.#options.ownership.isFresh()) throw new OwnershipLostError();
  }

  #countError(error: unknown): void {
    const { metrics, source } = this.#options;
    metrics.producerErrors.inc({ source, kind: producerErrorOf(error) });
  }
}
