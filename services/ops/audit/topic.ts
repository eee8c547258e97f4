/** The topic as the auditor reads it: from its start, and then on; of each event only the first occurrence is kept. */
import { fromRecord, type ReceivedEnvelope, UndecodableRecordError } from "../../../proto/envelope.ts";
import { openAdmin } from "../../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../../relay/kafka/client.ts";
import { consumeTopic, type TopicRecord } from "../../../relay/kafka/consumer.ts";
import { sleep } from "../../kit/backoff.ts";
import { UnavailableError } from "../../kit/errors.ts";

/** The first time that an event was on the topic. */
export interface Occurrence {
  readonly eventId: string;
  readonly type: string;
  /** CloudEvents source, for example `/shop/order`. */
  readonly source: string;
  /** The publisher's `seq`. */
  readonly sequence: number;
  readonly partition: number;
  readonly offset: number;
}

export interface TopicBooks {
  /** Reads on to what is now the end. @throws UnavailableError when the broker does not go on answering. */
  catchUp(): Promise<void>;
  of(orderId: string): readonly Occurrence[];
  orderIds(): Iterable<string>;
  /** How many records were read, and how many of them had been there before, or are no events. */
  counts(): { readonly records: number; readonly duplicates: number; readonly unreadable: number };
  /** What was published after this time is on the topic still; 1970 where nothing has expired yet. */
  retainedSince(): Date;
  /** The next offset that each service's consumer group will read, by partition. */
  committed(group: string): Promise<ReadonlyMap<number, number>>;
  close(): Promise<void>;
}

const pollIntervalMs = 5;
const silenceMaxMs = 30_000;
const batchSizeMax = 5_000;
const partitionsConcurrently = 4;

/**
 * Follows the topic in a group of its own, which commits nothing and is deleted in the end. What it remembers grows with
 * the events, and not with how often each was delivered.
 */
export async function openTopicBooks(kafka: KafkaOptions, topic: string): Promise<TopicBooks> {
  const admin = await openAdmin(kafka);
  const groupId = `audit-${crypto.randomUUID()}`;
  const byOrder = new Map<string, Occurrence[]>();
  const positions = new Map<number, number>();
  const oldest = new Map<number, Date>();
  const counts = { records: 0, duplicates: 0, unreadable: 0 };
  const texts = new Map<string, string>();
  let retainedSince: Date | undefined;
  let heardAtMs = performance.now();
  let crash: Error | undefined;

  /** Types and sources are few: each is kept once. */
  const shared = (text: string) => {
    const known = texts.get(text);
    if (known !== undefined) return known;
    texts.set(text, text);
    return text;
  };
  const note = (record: TopicRecord) => {
    if (Number(record.offset) < (positions.get(record.partition) ?? 0)) return;
    counts.records++;
    let envelope: ReceivedEnvelope;
    try {
      envelope = fromRecord(record);
    } catch (error) {
      if (!(error instanceof UndecodableRecordError)) throw error;
      counts.unreadable++;
      return;
    }
    const occurrences = byOrder.get(envelope.aggregateId) ?? [];
    if (occurrences.some(({ eventId, source }) => eventId === envelope.id && source === envelope.ceSource)) {
      counts.duplicates++;
      return;
    }
    occurrences.push({
      eventId: envelope.id,
      type: shared(envelope.type),
      source: shared(envelope.ceSource),
      sequence: Number(envelope.sequence),
      partition: record.partition,
      offset: Number(record.offset),
    });
    byOrder.set(envelope.aggregateId, occurrences);
  };
  const consumer = await consumeTopic({
    ...kafka,
    groupId,
    topic,
    from: "earliest",
    commitOffsets: false,
    partitionsConcurrently,
    batchSizeMax,
    async onBatch(records) {
      heardAtMs = performance.now();
      for (const record of records) {
        if (!oldest.has(record.partition)) oldest.set(record.partition, record.publishedAt);
        note(record);
        positions.set(record.partition, Math.max(Number(record.offset) + 1, positions.get(record.partition) ?? 0));
      }
    },
    onCrash(error) {
      crash = error;
    },
  });

  return {
    async catchUp() {
      const ranges = await admin.endOffsets(topic);
      const isRead = ({ partition, offset, low }: (typeof ranges)[number]) =>
        offset === low || (positions.get(partition) ?? 0) >= Number(offset);
      heardAtMs = performance.now();
      while (!ranges.every(isRead)) {
        if (crash !== undefined) throw crash;
        if (performance.now() - heardAtMs > silenceMaxMs) {
          throw new UnavailableError(`${topic} could not be read to its end: no record came for ${silenceMaxMs} ms.`);
        }
        await sleep(pollIntervalMs);
      }
      // What expires from now on was read before: only the first look tells what is missing.
      retainedSince ??= new Date(
        Math.max(
          0,
          ...ranges
            .filter(({ low }) => low !== "0")
            // Of a partition that has expired whole, nothing can be missed.
            .map(({ partition }) => oldest.get(partition)?.getTime() ?? Date.now()),
        ),
      );
    },
    of: (orderId) => byOrder.get(orderId) ?? [],
    orderIds: () => byOrder.keys(),
    counts: () => ({ ...counts }),
    retainedSince: () => retainedSince ?? new Date(0),
    async committed(group) {
      const offsets = await admin.committedOffsets(group, topic);
      return new Map(offsets.map(({ partition, offset }) => [partition, Number(offset)]));
    },
    async close() {
      await consumer.close();
      // The broker forgets an empty group by itself; this is only sooner.
      await admin.deleteGroup(groupId).catch(() => undefined);
      await admin.close();
    },
  };
}
