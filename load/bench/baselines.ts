/** What the relay is measured against, on the same rows, servers and libraries. */
import { toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { openOutboxStore } from "../../relay/outbox/store.ts";
import type { BenchOutbox } from "./outbox.ts";

/** How long rows took, in the parts of a relay that does one thing after another. */
export interface SerialTimes {
  readonly rows: number;
  readonly readAndMarkMs: number;
  readonly encodeMs: number;
  readonly produceMs: number;
}

const sendTimeoutMs = 10_000;
const encoding = { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry } as const;

/**
 * Reads and marks all pending rows, `batchRows` at a time; then, with nothing else going on, makes their records; then
 * produces these, in the same batches. The first `warmUpRows` are not counted.
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
      const counts = read >= warmUpRows;
      if (counts) times.readAndMarkMs += performance.now() - startedMs;
      batches.push({ rows, counts });
      read += rows.length;
      afterSeq = rows.at(-1)?.seq ?? afterSeq;
    }
    const encoded = batches.map(({ rows, counts }) => {
      const startedMs = performance.now();
      const records = rows.map((row) => toRecord(row, encoding));
      if (counts) times.encodeMs += performance.now() - startedMs;
      return { records, counts };
    });
    for (const { records, counts } of encoded) {
      const startedMs = performance.now();
      await producer.send(outbox.topic, records);
      if (!counts) continue;
      times.produceMs += performance.now() - startedMs;
      times.rows += records.length;
    }
    return times;
  } finally {
    await Promise.all([producer.close(), store.close()]);
  }
}

const textbookReadRows = 100;

/** The relay of the textbooks: reads 100, sends one by one, updates one by one. Rows a second. */
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
