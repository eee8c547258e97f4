import type { SagaEvent } from "../../../proto/event-table.ts";

/** An event of one order. It keeps its id however often it is sent. */
export interface EventRecord {
  readonly id: string;
  /** The index of the order. */
  readonly index: number;
  readonly event: SagaEvent;
}

/** Partitions, each with its records in order. A record's offset is its index in the partition. */
export type Topic = EventRecord[][];

/** The most that a process takes on at once: events to send or to handle, calls to make or to record. */
export const batchMax = 8;
