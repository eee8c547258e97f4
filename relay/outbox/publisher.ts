/**
 * Publishes rows to the topic: encodes them, splits them into sends of a size that the broker accepts, and finds the row
 * that is to blame when the broker refuses a send. One send is in flight at a time; after a failure, one a partition.
 */
import type { Registry } from "@bufbuild/protobuf";
import { type Encoding, type EventRecord, type OutboxRow, toRecord } from "../../proto/envelope.ts";
import { partitionOf } from "../kafka/partitioner.ts";
import type { AcknowledgedRows } from "./acknowledged-rows.ts";
import { type Fault, faultOf } from "./faults.ts";
import type { HeldKeys } from "./held-keys.ts";
import type { RelayMetrics } from "./metrics.ts";
import { type OwnedProducer, OwnershipLostError } from "./owned-producer.ts";
import type { PoisonRows } from "./poison-rows.ts";
import type { RefusedPartitions } from "./refused-partitions.ts";

/** Below the usual `max.message.bytes` of 1 MiB, so that only a row that is too large by itself is refused. */
export const sendSizeMaxBytes = 900_000;
/** What key and headers add to a record, roughly. */
export const recordOverheadBytes = 600;
/** Partitions that are sent to side by side after a send that failed. */
const partitionSendsMax = 16;

interface Sendable {
  readonly row: OutboxRow;
  readonly record: EventRecord;
}

/** A row that cannot be encoded. */
interface Unencodable {
  readonly row: OutboxRow;
  readonly fault: Fault;
  readonly error: unknown;
}

export type EncodedRow = Sendable | Unencodable;

export interface PublisherOptions {
  readonly source: string;
  readonly topic: string;
  readonly ceSource: string;
  readonly encoding: Encoding;
  readonly registry: Registry;
  readonly producer: OwnedProducer;
  readonly acknowledged: AcknowledgedRows;
  readonly heldKeys: HeldKeys;
  readonly poisonRows: PoisonRows;
  readonly refusedPartitions: RefusedPartitions;
  readonly metrics: RelayMetrics;
}

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #labels: { readonly source: string };

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#labels = { source: options.source };
  }

  encode(row: OutboxRow): EncodedRow {
    const { ceSource, encoding, registry } = this.#options;
    try {
      return { row, record: toRecord(row, { ceSource, encoding, registry }) };
    } catch (error) {
      const fault = faultOf(error);
      if (fault === undefined) throw error;
      return { row, fault, error };
    }
  }

  /**
   * Sends the rows in order, skips those of held keys, and adds what the broker acknowledges to the acknowledged rows. A row
   * that has a fault holds its key, and a partition that refuses its rows holds all of its keys. Returns true if any row was
   * passed to the broker, even if the broker refused it.
   * @throws OwnershipLostError or the error of an outage; some of the rows may have been sent.
   */
  async publish(rows: readonly EncodedRow[]): Promise<boolean> {
    const { heldKeys } = this.#options;
    let sent = false;
    let batch: Sendable[] = [];
    let batchBytes = 0;
    const flush = async () => {
      const full = batch;
      batch = [];
      batchBytes = 0;
      await this.#sendOrBisect(full);
    };
    for (const encoded of rows) {
      const { row } = encoded;
      if (heldKeys.isHeld(row)) continue;
      if ("fault" in encoded) {
        // Earlier rows of its key are sent first. Once it is FAILED its key is held, and they could no longer be sent.
        if (encoded.fault === "poison") await flush();
        // If one of them was refused just now, this row waits behind it.
        if (!heldKeys.isHeld(row)) await this.#hold(row, encoded.fault, encoded.error);
        continue;
      }
      const sizeBytes = encoded.record.value.byteLength + recordOverheadBytes;
      if (batchBytes + sizeBytes > sendSizeMaxBytes) await flush();
      batch.push(encoded);
      batchBytes += sizeBytes;
      sent = true;
    }
    await flush();
    return sent;
  }

  /** A batch that is refused as too large is halved until the row that is to blame is alone. */
  async #sendOrBisect(batch: readonly Sendable[]): Promise<void> {
    const { producer, topic, heldKeys } = this.#options;
    // The first half of a batch may have held a key that the second half has rows of.
    const sendable = batch.filter(({ row }) => !heldKeys.isHeld(row));
    const [first, ...others] = sendable;
    if (first === undefined) return;
    // If this fails, no partition is to blame.
    await producer.connect();
    try {
      await producer.send(
        topic,
        sendable.map(({ record }) => record),
      );
    } catch (error) {
      const fault = faultOf(error);
      if (fault === undefined) return await this.#sendByPartition(sendable, error);
      if (others.length === 0) return await this.#hold(first.row, fault, error);
      const middle = Math.ceil(sendable.length / 2);
      await this.#sendOrBisect(sendable.slice(0, middle));
      return await this.#sendOrBisect(sendable.slice(middle));
    }
    this.#acknowledge(sendable);
  }

  /**
   * After a send that failed: sends the rows of each partition alone. Those that a partition accepts are acknowledged; a
   * partition that refuses is held.
   * @throws OwnershipLostError; `cause` if no partition accepts its rows.
   */
  async #sendByPartition(rows: readonly Sendable[], cause: unknown): Promise<void> {
    const { producer, topic, refusedPartitions } = this.#options;
    const partitions = producer.partitionsOf(topic);
    if (cause instanceof OwnershipLostError || partitions === undefined) throw cause;
    // The producer of the failed send is closed. If another cannot connect, no partition is to blame.
    await producer.connect();
    const attempts = await this.#attemptEach(Map.groupBy(rows, ({ record }) => partitionOf(record.key, partitions)));
    const accepted = attempts.filter(({ error }) => error === undefined);
    if (accepted.length > 0) this.#acknowledge(accepted.flatMap((attempt) => attempt.rows));
    const failed = attempts.filter(({ error }) => error !== undefined);
    const lost = failed.find(({ error }) => error instanceof OwnershipLostError);
    if (lost !== undefined) throw lost.error;
    const [refused = [], atFault = []] = [false, true].map((isFault) =>
      failed.filter(({ error }) => (faultOf(error) !== undefined) === isFault),
    );
    for (const {
      partition,
      rows: [first],
      error,
    } of refused) {
      if (first !== undefined) {
        refusedPartitions.hold({ number: partition, of: partitions }, error, () => this.#probe(first));
      }
    }
    if (refused.length === attempts.length) throw cause;
    for (const attempt of atFault) await this.#sendOrBisect(attempt.rows);
  }

  /** Sends each partition's rows on a connection of its own. Never rejects. */
  async #attemptEach(byPartition: ReadonlyMap<number, readonly Sendable[]>) {
    const { producer, topic } = this.#options;
    const attempts: { partition: number; rows: readonly Sendable[]; error: unknown }[] = [];
    const waiting = byPartition.entries();
    const work = async () => {
      for (const [partition, rows] of waiting) {
        const records = rows.map(({ record }) => record);
        const sent = producer.sendAlone(topic, records);
        attempts.push({
          partition,
          rows,
          error: await sent.then(
            () => undefined,
            (error: unknown) => error,
          ),
        });
      }
    };
    await Promise.all(Array.from({ length: partitionSendsMax }, work));
    return attempts;
  }

  /** Resolves if the row's partition accepts records. */
  async #probe(row: Sendable): Promise<void> {
    try {
      await this.#options.producer.sendAlone(this.#options.topic, [row.record]);
    } catch (error) {
      if (faultOf(error) === undefined) throw error;
      // The row is to blame, not the partition. The next send finds that out.
      return;
    }
    this.#acknowledge([row]);
  }

  #acknowledge(sent: readonly Sendable[]): void {
    const { acknowledged, metrics } = this.#options;
    const acknowledgedMs = Date.now();
    acknowledged.add(sent.map(({ row }) => row.id));
    metrics.batchRows.observe(this.#labels, sent.length);
    const oldestMs = Math.min(...sent.map(({ row }) => row.occurredAt.getTime()));
    metrics.commitToPublishSeconds.observe(this.#labels, Math.max(0, acknowledgedMs - oldestMs) / 1_000);
  }

  /**
   * Holds the key of a row that has a fault, and counts an attempt at a poison row. The earlier rows of a poison row's key
   * must have been sent. Those of a schema-behind row may still be queued: its key is held from this row on.
   */
  async #hold(row: OutboxRow, fault: Fault, error: unknown): Promise<void> {
    this.#options.heldKeys.hold(row, fault, error);
    if (fault === "poison") await this.#options.poisonRows.countAttempt(row, error);
  }
}
