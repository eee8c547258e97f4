/** The topic as the auditor follows it: from its start, and then on. */
import { type KafkaAdmin, openAdmin } from "../../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../../relay/kafka/client.ts";
import { consumeTopic, type TopicConsumer, type TopicRecord } from "../../../relay/kafka/consumer.ts";
import { sleep } from "../../kit/backoff.ts";
import { describeError, UnavailableError } from "../../kit/errors.ts";
import { FirstOccurrences } from "./occurrences.ts";

const pollIntervalMs = 5;
const silenceMaxMs = 30_000;
const batchSizeMax = 5_000;
const partitionsConcurrently = 4;

/** Follows a topic in a consumer group of its own, which commits no offsets and is deleted at the end. */
export class TopicBooks {
  /** What was read so far. */
  readonly events = new FirstOccurrences();
  readonly #topic: string;
  readonly #groupId: string;
  readonly #admin: KafkaAdmin;
  #consumer: TopicConsumer | undefined;
  /** The next offset to read, by partition. */
  readonly #positions = new Map<number, number>();
  /** When the first record that was read was published, by partition. */
  readonly #firstPublishedAt = new Map<number, Date>();
  #retainedSince: Date | undefined;
  #lastBatchMs = performance.now();
  #crash: Error | undefined;

  private constructor(topic: string, groupId: string, admin: KafkaAdmin) {
    this.#topic = topic;
    this.#groupId = groupId;
    this.#admin = admin;
  }

  /** Starts reading. @throws Error if no broker answers. */
  static async open(kafka: KafkaOptions, topic: string): Promise<TopicBooks> {
    const admin = await openAdmin(kafka);
    const groupId = `audit-${crypto.randomUUID()}`;
    const books = new TopicBooks(topic, groupId, admin);
    books.#consumer = consumeTopic({
      ...kafka,
      groupId,
      topic,
      from: "earliest",
      commitOffsets: false,
      partitionsConcurrently,
      batchSizeMax,
      onBatch: async (records) => books.#add(records),
      onHandled: (partition, nextOffset) => books.#advance(partition, Number(nextOffset)),
      onCrash: (error) => {
        books.#crash = error;
      },
    });
    return books;
  }

  #add(records: readonly TopicRecord[]): void {
    this.#lastBatchMs = performance.now();
    for (const record of records) {
      const { partition, publishedAt } = record;
      const offset = Number(record.offset);
      if (!this.#firstPublishedAt.has(partition)) this.#firstPublishedAt.set(partition, publishedAt);
      // After a rebalance the consumer starts over: it has committed nothing.
      if (offset >= (this.#positions.get(partition) ?? 0)) this.events.add(record);
      this.#advance(partition, offset + 1);
    }
  }

  #advance(partition: number, nextOffset: number): void {
    this.#positions.set(partition, Math.max(nextOffset, this.#positions.get(partition) ?? 0));
  }

  /** Reads up to the topic's current end. @throws UnavailableError if the broker stops sending records. */
  async catchUp(): Promise<void> {
    const ranges = await this.#admin.endOffsets(this.#topic);
    this.#lastBatchMs = performance.now();
    const isRead = ({ partition, offset, low }: (typeof ranges)[number]) =>
      offset === low || (this.#positions.get(partition) ?? 0) >= Number(offset);
    while (!ranges.every(isRead)) {
      if (this.#crash !== undefined) throw this.#crash;
      const [unreadable] = this.#consumer?.unreadable() ?? [];
      if (unreadable !== undefined) {
        throw new UnavailableError(
          `Partition ${unreadable.partition} of ${this.#topic} cannot be read from offset ${unreadable.offset} on: ${describeError(unreadable.error)}`,
        );
      }
      if (performance.now() - this.#lastBatchMs > silenceMaxMs) {
        throw new UnavailableError(
          `${this.#topic} could not be read to its end: no record arrived for ${silenceMaxMs} ms.`,
        );
      }
      await sleep(pollIntervalMs);
    }
    // Only the first time: records that expire from now on have been read already.
    this.#retainedSince ??= new Date(
      Math.max(
        0,
        ...ranges
          .filter(({ low }) => low !== "0")
          // Of a partition whose records have all expired, nothing before now can be expected.
          .map(({ partition }) => this.#firstPublishedAt.get(partition)?.getTime() ?? Date.now()),
      ),
    );
  }

  /** What was published after this time is still on the topic; 1970 if no record has expired. */
  retainedSince(): Date {
    return this.#retainedSince ?? new Date(0);
  }

  /** The next offset that a consumer group will read, by partition. */
  async committed(group: string): Promise<ReadonlyMap<number, number>> {
    const offsets = await this.#admin.committedOffsets(group, this.#topic);
    return new Map(offsets.map(({ partition, offset }) => [partition, Number(offset)]));
  }

  async close(): Promise<void> {
    await this.#consumer?.close();
    // The broker would forget an empty group by itself, but later.
    await this.#admin.deleteGroup(this.#groupId).catch(() => undefined);
    await this.#admin.close();
  }
}
