/**
 * Republishes events: sends published events again with the same ids and keys, in `seq` order. Consumers drop the events
 * that are still in their inbox, so an event that an inbox may have pruned must not be republished.
 */
import type { Registry } from "@bufbuild/protobuf";
import { type EventRecord, type OutboxRow, toRecord } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import { databaseNow } from "../../services/kit/database.ts";
import { DomainError, messageOf } from "../../services/kit/errors.ts";
import type { RecordProducer } from "../kafka/producer.ts";
import { recordOverheadBytes, sendSizeMaxBytes } from "../outbox/publisher.ts";
import { ensureAuditTable, type OperatorCommand, recordCommand, recordResult } from "./audit-log.ts";
import type { OperatedSource } from "./source.ts";
import { takeSource } from "./takeover.ts";

/** The events published at or after `from` and before `to`, by the database's clock. */
export interface RepublishRange {
  readonly from: Date;
  readonly to: Date;
  /** Limits the range to one key. */
  readonly key?: string | undefined;
}

/** How many events a range holds, and where they are. */
export interface RepublishCount {
  readonly events: number;
  readonly fromOutbox: number;
  readonly fromArchive: number;
  /** Decimal; null if there are no events. */
  readonly firstSeq: string | null;
  readonly lastSeq: string | null;
}

/** How it ended: of the `events` counted beforehand, `sent` were sent again. */
export interface RepublishResult extends RepublishCount {
  readonly sent: number;
  /** False if it was stopped. The events after `lastSentSeq` were not sent. */
  readonly complete: boolean;
  readonly lastSentSeq: string | null;
}

const batchRowsMax = 500;
/** The size of the first batch, and of batches of huge payloads. */
const batchRowsMin = 10;
/** The next batch is sized so that rows of average size stay below this, counted in characters of their payloads. */
const batchCharactersMax = 4 * 1_024 * 1_024;
const sendAttemptsMax = 5;
const backoffMs = { baseMs: 200, maxMs: 2_000 };

/** A range that is safe to republish, and what it holds. */
export interface RepublishPlan {
  readonly range: RepublishRange;
  readonly count: RepublishCount;
}

/**
 * Checks a range and counts what {@link republish} would send. Reads all published rows: with millions of them this takes
 * some seconds.
 * @param archiveRetentionMs how long outbox and archive keep an event after its publication. Inboxes remember it for at
 *   least a day longer (inbox/pruning.ts), so events that are sent at the last moment are still deduplicated.
 * @throws DomainError INVALID_ARGUMENT if the range is empty, FAILED_PRECONDITION if inboxes may have pruned its events.
 */
export async function planRepublish(
  source: OperatedSource,
  { from, to, key }: RepublishRange,
  archiveRetentionMs: number,
): Promise<RepublishPlan> {
  const nowMs = (await databaseNow(source.database)).getTime();
  // What is not published yet, the relay will send.
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
      `Events from ${from.toISOString()} are too old to be republished: events are kept for ${describeRetention(archiveRetentionMs)} and inboxes remember them for one day longer, and a service whose inbox has forgotten an event would handle it twice. The oldest safe time is ${oldest.toISOString()}.`,
    );
  }
  return { range, count: await countEvents(source, range) };
}

/** For a message, in days or in hours. */
function describeRetention(retentionMs: number): string {
  const hours = retentionMs / 3_600_000;
  const [count, unit] = hours % 24 === 0 ? [hours / 24, "day"] : [hours, "hour"];
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

async function countEvents(source: OperatedSource, range: RepublishRange): Promise<RepublishCount> {
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
  // In one statement, so that a row that moves to the archive meanwhile is counted once.
  const rows = await source.database.query(`${outbox.sql} UNION ALL ${archive.sql}`, [
    ...outbox.values,
    ...archive.values,
  ]);
  const eventsIn = (origin: string) => Number(rows.find((row) => row.origin === origin)?.events);
  const sequences = rows
    .flatMap(({ firstSeq, lastSeq }) => (firstSeq === null ? [] : [BigInt(String(firstSeq)), BigInt(String(lastSeq))]))
    .sort((a, b) => (a < b ? -1 : 1));
  return {
    events: eventsIn("outbox") + eventsIn("archive"),
    fromOutbox: eventsIn("outbox"),
    fromArchive: eventsIn("archive"),
    firstSeq: sequences[0]?.toString() ?? null,
    lastSeq: sequences.at(-1)?.toString() ?? null,
  };
}

/** Excludes DISCARDED events, which never were on the topic. */
function condition({ from, to, key }: RepublishRange): { readonly sql: string; readonly values: readonly unknown[] } {
  const ofKey = key === undefined ? "" : "AND event.aggregate_id = ?";
  return {
    sql: `event.status = 'PUBLISHED' AND event.published_at >= ? AND event.published_at < ? ${ofKey}`,
    values: [from, to, ...(key === undefined ? [] : [key])],
  };
}

interface RepublishOptions {
  readonly plan: RepublishPlan;
  readonly registry: Registry;
  readonly command: OperatorCommand;
  /** Connects a producer with the time limit `sendTimeoutMs` (outbox/ownership-times.ts). */
  readonly openProducer: () => Promise<RecordProducer>;
  /** Called after each send. */
  readonly onProgress: (sent: number, of: number) => void;
  /** Receives a sentence for the operator: what the command is waiting for. */
  readonly onWait: (what: string) => void;
  /** Stops it after the current batch. */
  readonly signal?: AbortSignal;
}

/**
 * Takes the source, so that its relay pauses, and sends the planned events again. The audit row is written at the start,
 * so that even a run that dies half-way leaves a trace.
 * @throws DomainError if the source cannot be taken; any other Error says how far it got. It is safe to run it again.
 */
export async function republish(source: OperatedSource, options: RepublishOptions): Promise<RepublishResult> {
  const { database } = source;
  const { count } = options.plan;
  if (count.events === 0) return { ...count, sent: 0, complete: true, lastSentSeq: null };
  await ensureAuditTable(database);
  const taken = await takeSource(source, options);
  const sender = createSender(options.openProducer, taken.requireOwned);
  const progress: Progress = { sent: 0, lastSentSeq: null };
  let auditId: string | undefined;
  try {
    auditId = await recordCommand(database, options.command, { ...count, outcome: "STARTED" });
    const complete = await sendEvents(source, options, sender, progress);
    const result = { ...count, ...progress, complete };
    await recordResult(database, auditId, { ...result, outcome: complete ? "COMPLETE" : "STOPPED" });
    return result;
  } catch (error) {
    const message = messageOf(error);
    if (auditId !== undefined) {
      const result = { ...count, ...progress, outcome: "FAILED", error: message };
      await recordResult(database, auditId, result).catch(() => undefined);
    }
    throw new Error(
      `Republishing stopped after ${progress.sent} of ${count.events} events (seq ${progress.lastSentSeq ?? "none"}). It is safe to run it again. The cause: ${message}`,
      { cause: error },
    );
  } finally {
    await sender.close();
    await taken.release();
  }
}

interface Progress {
  sent: number;
  lastSentSeq: string | null;
}

/** Sends the planned events batch by batch and keeps `progress` up to date. Returns false if it was stopped. */
async function sendEvents(
  source: OperatedSource,
  { plan: { range, count }, registry, onProgress, signal }: RepublishOptions,
  sender: Sender,
  progress: Progress,
): Promise<boolean> {
  const { firstSeq, lastSeq } = count;
  if (firstSeq === null || lastSeq === null) return true;
  let afterSeq = (BigInt(firstSeq) - 1n).toString();
  let limit = batchRowsMin;
  while (signal?.aborted !== true) {
    const rows = await readBatch(source, range, { afterSeq, lastSeq, limit });
    for (const chunk of splitIntoChunks(rows, (row) => encode(source, row, registry))) {
      await sender.send(source.topic, chunk.records);
      progress.sent += chunk.records.length;
      progress.lastSentSeq = chunk.lastSeq;
      onProgress(progress.sent, count.events);
    }
    if (rows.length < limit) return true;
    afterSeq = rows.at(-1)?.seq ?? afterSeq;
    limit = nextLimit(rows);
  }
  return false;
}

async function readBatch(
  { database, outboxTable, archiveTable }: OperatedSource,
  range: RepublishRange,
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
  // Reads the archive second, so that a row that moves there in between is found, perhaps twice. A UNION would make MariaDB
  // read and sort the whole table for each batch.
  const rows = [...(await read(outboxTable)), ...(await read(archiveTable))] as unknown as OutboxRow[];
  const distinct = new Map(rows.map((row) => [row.id, row]));
  return [...distinct.values()].sort((a, b) => (BigInt(a.seq) < BigInt(b.seq) ? -1 : 1)).slice(0, limit);
}

function nextLimit(rows: readonly OutboxRow[]): number {
  const averageCharacters = rows.reduce((sum, { payload }) => sum + payload.length, 0) / Math.max(1, rows.length);
  const fittingRows = Math.floor(batchCharactersMax / Math.max(1, averageCharacters));
  return Math.max(batchRowsMin, Math.min(batchRowsMax, fittingRows));
}

function encode(source: OperatedSource, row: OutboxRow, registry: Registry): EventRecord {
  try {
    return toRecord(row, { ceSource: source.ceSource, encoding: source.encoding, registry });
  } catch (error) {
    throw new Error(`The event ${row.id} (seq ${row.seq}) cannot be encoded: ${messageOf(error)}`, { cause: error });
  }
}

/** Splits a batch into chunks that are small enough for one send. */
function* splitIntoChunks(
  rows: readonly OutboxRow[],
  encodeRow: (row: OutboxRow) => EventRecord,
): Generator<{ readonly records: readonly EventRecord[]; readonly lastSeq: string }> {
  let records: EventRecord[] = [];
  let sizeBytes = 0;
  let lastSeq = "";
  for (const row of rows) {
    const record = encodeRow(row);
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

interface Sender {
  send(topic: string, records: readonly EventRecord[]): Promise<void>;
  close(): Promise<void>;
}

/** Retries each send until it is acknowledged, so that the first occurrences of the events stay in order. */
function createSender(openProducer: () => Promise<RecordProducer>, requireOwned: () => void): Sender {
  let producer: RecordProducer | undefined;
  const close = async () => {
    const closing = producer;
    producer = undefined;
    await closing?.close();
  };
  return {
    close,
    async send(topic, records) {
      for (let attempt = 0; ; attempt++) {
        try {
          producer ??= await openProducer();
          requireOwned();
          return await producer.send(topic, records);
        } catch (error) {
          // The producer may still have a request in flight.
          await close();
          requireOwned();
          if (attempt + 1 >= sendAttemptsMax) throw error;
          await sleep(fullJitterMs(attempt, backoffMs));
        }
      }
    },
  };
}
