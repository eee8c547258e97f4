import { fromRecord, type ReceivedEnvelope } from "../../../proto/envelope.ts";
import type { TopicRecord } from "../../../relay/kafka/consumer.ts";

/** The first record of an event on the topic. */
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

/** The first occurrences on a topic, by order. Memory grows with the events, not with how often each was delivered. */
export class FirstOccurrences {
  readonly #byOrder = new Map<string, Occurrence[]>();
  /** There are few types and sources: each string is kept once. */
  readonly #strings = new Map<string, string>();
  readonly #counts = { records: 0, duplicates: 0, unreadable: 0 };

  /** Adds a record that was not added before. */
  add(record: TopicRecord): void {
    this.#counts.records++;
    let envelope: ReceivedEnvelope;
    try {
      envelope = fromRecord(record);
    } catch {
      this.#counts.unreadable++;
      return;
    }
    const occurrences = this.#byOrder.get(envelope.aggregateId) ?? [];
    if (occurrences.some(({ eventId, source }) => eventId === envelope.id && source === envelope.ceSource)) {
      this.#counts.duplicates++;
      return;
    }
    occurrences.push({
      eventId: envelope.id,
      type: this.#shared(envelope.type),
      source: this.#shared(envelope.ceSource),
      sequence: Number(envelope.sequence),
      partition: record.partition,
      offset: Number(record.offset),
    });
    this.#byOrder.set(envelope.aggregateId, occurrences);
  }

  /** The order's events, in the order of the topic. */
  of(orderId: string): readonly Occurrence[] {
    return this.#byOrder.get(orderId) ?? [];
  }

  orderIds(): Iterable<string> {
    return this.#byOrder.keys();
  }

  /** How many records were added, how many of them repeat an event, and how many are not events. */
  counts(): { readonly records: number; readonly duplicates: number; readonly unreadable: number } {
    return { ...this.#counts };
  }

  #shared(text: string): string {
    const known = this.#strings.get(text);
    if (known !== undefined) return known;
    this.#strings.set(text, text);
    return text;
  }
}
