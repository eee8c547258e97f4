/**
 * Sends published events again, as they were: same ids, same keys, in `seq` order. Consumers drop those that they have
 * in their inbox; so nothing may be replayed that an inbox may have forgotten.
 */
import type { Registry } from "@bufbuild/protobuf";
import { type EventRecord, type OutboxRow, toRecord } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import { DomainError, messageOf } from "../../services/kit/errors.ts";
import type { RecordProducer } from "../kafka/producer.ts";
import {
  ensureAuditTable,
  type OperatedSource,
  type OperatorCommand,
  recordCommand,
  recordResult,
} from "./audit-log.ts";
import { takeSource } from "./takeover.ts";
import { databaseNow } from "./undelivered.ts";

/** Which events: those published from `from` on and before `to`, by the database's clock. */
export interface ReplayRange {
  readonly from: Date;
  readonly to: Date;
  /** Only those of one key. */
  readonly key?: string | undefined;
}

/** What a replay would send. */
export interface ReplayCount {
  readonly events: number;
  readonly fromOutbox: number;
  readonly fromArchive: number;
  /** Decimal; null where there is nothing. */
  readonly firstSeq: string | null;
  readonly lastSeq: string | null;
}

/** How a replay ended: of `events` that there were when it began, `sent` are on the topic once more. */
export interface ReplayResult extends ReplayCount {
  readonly sent: number;
  /** False where it was stopped. What was not sent is behind `lastSentSeq`. */
  readonly complete: boolean;
  readonly lastSentSeq: string | null;
}

const batchRowsMax = 500;
/** For the first read, and for huge payloads. */
const batchRowsMin = 10;
/** What a batch of average rows may hold in memory. */
const batchSizeMaxBytes = 4 * 1_024 * 1_024;
/** As the relay's: below the usual `max.message.bytes` of 1 MiB, with room for key and headers. */
const sendSizeMaxBytes = 900_000;
const recordOverheadBytes = 600;
const sendAttemptsMax = 5;
const backoffMs = { baseMs: 200, maxMs: 2_000 };

/** A range that may be replayed, and what is in it. */
export interface ReplayPlan {
  readonly range: ReplayRange;
  readonly count: ReplayCount;
}

/**
 * Counts what {@link replay} would send. Reads all published rows: with millions of them it takes some seconds.
 * @param archiveRetentionMs how long outbox and archive keep an event, from its publication on. Inboxes remember it for a
 *   day more at the least (archive.ts), in which what is sent at the last moment gets handled.
 * @throws DomainError INVALID_ARGUMENT for a range that is none, FAILED_PRECONDITION for what an inbox may have forgotten.
 */
export async function planReplay(
  source: OperatedSource,
  { from, to, key }: ReplayRange,
  archiveRetentionMs: number,
): Promise<ReplayPlan> {
  const nowMs = (await databaseNow(source.database)).getTime();
  // Later ones are the relay's own to send.
  const range = { from, to: new Date(Math.min(to.getTime(), nowMs)), key };
  if (from >= range.to) {
    throw new DomainError(
      "INVALID_ARGUMENT",
      `--from (${from.toISOString()}) must be before --to (${to.toISOString()}) and before now (${new Date(nowMs).toISOString()}).`,
    );
  }
  const oldest = new Date(nowMs - archiveRetentionMs);
  if (from < oldest) {
    throw new DomainError(
      "FAILED_PRECONDITION",
      `Events from ${from.toISOString()} are too old to be sent again: events are kept for ${archiveRetentionMs / 86_400_000} days and remembered by inboxes for little longer, and whoever has forgotten an event would handle it twice. The oldest that is safe is ${oldest.toISOString()}.`,
    );
  }
  return { range, count: await countEvents(source, range) };
}

async function countEvents(source: OperatedSource, range: ReplayRange): Promise<ReplayCount> {
  const select = (origin: string, table: string) => {
    const { sql, values } = condition(range);
    return {
      sql: `SELECT '${origin}' AS origin, COUNT(*) AS events, CAST(MIN(event.seq) AS CHAR) AS firstSeq,
                   CAST(MAX(event.seq) AS CHAR) AS lastSeq
              FROM ${table} AS event WHERE ${sql}`,
      values,
    };
  };
  const outbox = select("outbox", source.outboxTable);
  const archive = select("archive", source.archiveTable);
  // One statement sees one moment: a row on its way to the archive is counted once.
  const rows = await source.database.query(`${outbox.sql} UNION ALL ${archive.sql}`, [
    ...outbox.values,
    ...archive.values,
  ]);
  const of = (origin: string) => Number(rows.find((row) => row.origin === origin)?.events);
  const sequences = rows
    .flatMap(({ firstSeq, lastSeq }) => (firstSeq === null ? [] : [BigInt(String(firstSeq)), BigInt(String(lastSeq))]))
    .sort((a, b) => (a < b ? -1 : 1));
  return {
    events: of("outbox") + of("archive"),
    fromOutbox: of("outbox"),
    fromArchive: of("archive"),
    firstSeq: sequences[0]?.toString() ?? null,
    lastSeq: sequences.at(-1)?.toString() ?? null,
  };
}

/** DISCARDED events never were on the topic, so they are not put there now. */
function condition({ from, to, key }: ReplayRange): { readonly sql: string; readonly values: readonly unknown[] } {
  const ofKey = key === undefined ? "" : "AND event.aggregate_id = ?";
  return {
    sql: `event.status = 'PUBLISHED' AND event.published_at >= ? AND event.published_at < ? ${ofKey}`,
    values: [from, to, ...(key === undefined ? [] : [key])],
  };
}

/**
 * Holds the source's lock, so that its relay pauses, and sends the planned events again. The audit row is there from the
 * beginning: a replay that dies half-way has left its trace.
 * @param options.onProgress is told after each batch.
 * @param options.onWait is told what it waits for.
 * @param options.signal stops it after the batch under way.
 * @throws DomainError when the source cannot be had; else what went wrong, with how far it got. It may be run again.
 */
export async function replay(
  source: OperatedSource,
  options: {
    readonly plan: ReplayPlan;
    readonly registry: Registry;
    readonly command: OperatorCommand;
    /** Connects a producer whose sends end within 2 s: see ownership.ts for why. */
    readonly openProducer: () => Promise<RecordProducer>;
    readonly onProgress: (sent: number, of: number) => void;
    readonly onWait: (what: string) => void;
    readonly signal?: AbortSignal;
  },
): Promise<ReplayResult> {
  const { database } = source;
  const { registry, signal } = options;
  const { range, count } = options.plan;
  if (count.firstSeq === null || count.lastSeq === null) {
    return { ...count, sent: 0, complete: true, lastSentSeq: null };
  }
  await ensureAuditTable(database);
  const held = await takeSource(source, options);
  const state = { sent: 0, lastSentSeq: null as string | null };
  const sender = createSender(options.openProducer, held.requireHeld);
  let auditId: string | undefined;
  try {
    auditId = await recordCommand(database, options.command, { ...count, outcome: "STARTED" });
    const lastSeq = count.lastSeq;
    let afterSeq = (BigInt(count.firstSeq) - 1n).toString();
    let complete = false;
    for (let limit = batchRowsMin; !complete && signal?.aborted !== true; ) {
      const rows = await readBatch(source, range, { afterSeq, lastSeq, limit });
      for (const send of inSends(rows, (row) => encode(source, row, registry))) {
        await sender.send(source.topic, send.records);
        state.sent += send.records.length;
        state.lastSentSeq = send.lastSeq;
        options.onProgress(state.sent, count.events);
      }
      afterSeq = rows.at(-1)?.seq ?? afterSeq;
      complete = rows.length < limit;
      limit = nextLimit(rows);
    }
    const result = { ...count, ...state, complete };
    await recordResult(database, auditId, { ...result, outcome: complete ? "COMPLETE" : "STOPPED" });
    return result;
  } catch (error) {
    const message = messageOf(error);
    if (auditId !== undefined) {
      const result = { ...count, ...state, outcome: "FAILED", error: message };
      await recordResult(database, auditId, result).catch(() => undefined);
    }
    throw new Error(
      `The replay stopped after ${state.sent} of ${count.events} events (seq ${state.lastSentSeq ?? "none"}): ${message} It may be run again.`,
      { cause: error },
    );
  } finally {
    await sender.close();
    await held.release();
  }
}

async function readBatch(
  { database, outboxTable, archiveTable }: OperatedSource,
  range: ReplayRange,
  { afterSeq, lastSeq, limit }: { readonly afterSeq: string; readonly lastSeq: string; readonly limit: number },
): Promise<readonly OutboxRow[]> {
  const { sql, values } = condition(range);
  const read = (table: string) =>
    database.query(
      `SELECT event.id, event.aggregate_id AS aggregateId, event.type, event.payload, event.headers,
              event.occurred_at AS occurredAt, CAST(event.seq AS CHAR) AS seq
         FROM ${table} AS event
        WHERE event.seq > CAST(? AS UNSIGNED) AND event.seq <= CAST(? AS UNSIGNED) AND ${sql}
        ORDER BY event.seq LIMIT ?`,
      [afterSeq, lastSeq, ...values, limit],
    );
  // The archive second: a row on its way there is found in one of them, or in both. Not as a UNION: MariaDB would read
  // and sort the whole table for each batch.
  const rows = [...(await read(outboxTable)), ...(await read(archiveTable))] as unknown as OutboxRow[];
  const distinct = new Map(rows.map((row) => [row.id, row]));
  return [...distinct.values()].sort((a, b) => (BigInt(a.seq) < BigInt(b.seq) ? -1 : 1)).slice(0, limit);
}

function nextLimit(rows: readonly OutboxRow[]): number {
  const averageBytes = rows.reduce((sum, { payload }) => sum + payload.length, 0) / Math.max(1, rows.length);
  return Math.max(batchRowsMin, Math.min(batchRowsMax, Math.floor(batchSizeMaxBytes / Math.max(1, averageBytes))));
}

function encode(source: OperatedSource, row: OutboxRow, registry: Registry): EventRecord {
  try {
    return toRecord(row, { ceSource: source.ceSource, encoding: source.encoding, registry });
  } catch (error) {
    throw new Error(`The event ${row.id} (seq ${row.seq}) cannot be encoded: ${messageOf(error)}`, { cause: error });
  }
}

/** Cuts a batch into sends of a size that the broker takes. */
function* inSends(
  rows: readonly OutboxRow[],
  toRecordOf: (row: OutboxRow) => EventRecord,
): Generator<{ readonly records: readonly EventRecord[]; readonly lastSeq: string }> {
  let records: EventRecord[] = [];
  let sizeBytes = 0;
  let lastSeq = "";
  for (const row of rows) {
    const record = toRecordOf(row);
    const recordBytes = record.value.byteLength + recordOverheadBytes;
    if (records.length > 0 && sizeBytes + recordBytes > sendSizeMaxBytes) {
      yield { records, lastSeq };
      records = [];
      sizeBytes = 0;
    }
    records.push(record);
    sizeBytes += recordBytes;
    lastSeq = row.seq;
  }
  if (records.length > 0) yield { records, lastSeq };
}

/** Sends until acknowledged: the same records again after a failure, so the order of first occurrences holds. */
function createSender(openProducer: () => Promise<RecordProducer>, requireHeld: () => void) {
  let producer: RecordProducer | undefined;
  const close = async () => {
    const closing = producer;
    producer = undefined;
    await closing?.close();
  };
  return {
    close,
    async send(topic: string, records: readonly EventRecord[]): Promise<void> {
      for (let attempt = 0; ; attempt++) {
        try {
          producer ??= await openProducer();
          requireHeld();
          return await producer.send(topic, records);
        } catch (error) {
          // A request of it may still be under way.
          await close();
          requireHeld();
          if (attempt + 1 >= sendAttemptsMax) throw error;
          await sleep(fullJitterMs(attempt, backoffMs));
        }
      }
    },
  };
}
