/** The baselines of the relay's drains. They use the same rows, servers and libraries as the relay. */
import { toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { openOutboxStore } from "../../relay/outbox/store.ts";
import type { BenchOutbox } from "./outbox.ts";

/** How long the steps of a serial relay took for `rows` rows. */
export interface SerialTimes {
  readonly rows: number;
  readonly readAndMarkMs: number;
  readonly encodeMs: number;
  readonly produceMs: number;
}

const sendTimeoutMs = 10_000;
const encoding = { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry } as const;

/**
 * Drains the outbox one step after the other: reads and marks all pending rows in batches of `batchRows`, then encodes
 * them, then produces them in the same batches. The first `warmUpRows` rows are not counted.
 */
export async function measureSerially(
  outbox: BenchOutbox,
  { batchRows, warmUpRows }: { readonly batchRows: number; readonly warmUpRows: number },
): Promise<SerialTimes> {
  const store = openOutboxStore({ databaseUrl: outbox.relayUrl, table: outbox.table });
  const producer = await openProducer({ ...outbox.kafka, timeoutMs: sendTimeoutMs });
  const times = { rows: 0, readAndMarkMs: 0, encodeMs: 0, produceMs: 0 };
  try {
    const batches = [];
    let read = 0;
    for (let afterSeq = "0"; ; ) {
      const startedMs = performance.now();
      const rows = await store.readPending({ afterSeq, exceptKeys: [], limit: batchRows });
      if (rows.length === 0) break;
      await store.markPublished(rows.map(({ id }) => id));
      const isCounted = read >= warmUpRows;
      if (isCounted) times.readAndMarkMs += performance.now() - startedMs;
      batches.push({ rows, isCounted });
      read += rows.length;
      afterSeq = rows.at(-1)?.seq ?? afterSeq;
    }
    const encoded = batches.map(({ rows, isCounted }) => {
      const startedMs = performance.now();
      const records = rows.map((row) => toRecord(row, encoding));
      if (isCounted) times.encodeMs += performance.now() - startedMs;
      return { records, isCounted };
    });
    for (const { records, isCounted } of encoded) {
      const startedMs = performance.now();
      await producer.send(outbox.topic, records);
      if (!isCounted) continue;
      times.produceMs += performance.now() - startedMs;
      times.rows += records.length;
    }
    return times;
  } finally {
    await Promise.all([producer.close(), store.close()]);
  }
}

const textbookReadRows = 100;

/** Drains the outbox as a textbook relay does: it reads 100 rows, and sends and marks them one by one. Returns rows a second. */
export async function measureTextbook(outbox: BenchOutbox, warmUpRows: number): Promise<number> {
  const store = openOutboxStore({ databaseUrl: outbox.relayUrl, table: outbox.table });
  const producer = await openProducer({ ...outbox.kafka, timeoutMs: sendTimeoutMs });
  try {
    let sent = 0;
    let startedMs = performance.now();
    for (;;) {
      const rows = await store.readPending({ afterSeq: "0", exceptKeys: [], limit: textbookReadRows });
      if (rows.length === 0) return ((sent - warmUpRows) * 1_000) / (performance.now() - startedMs);
      for (const row of rows) {
        await producer.send(outbox.topic, [toRecord(row, encoding)]);
        await store.markPublished([row.id]);
        if (++sent === warmUpRows) startedMs = performance.now();
      }
    }
  } finally {
    await Promise.all([producer.close(), store.close()]);
  }
}
