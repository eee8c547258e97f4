/** How fast the relay is, as ratios of what was measured in the same run: see README, "Measured". */

import { toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { consumeTopic } from "../../relay/kafka/consumer.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { openDatabase } from "../../services/kit/database.ts";
import { readProcessTimes } from "../k6/cpu.ts";
import type { Quantiles } from "../k6/plan.ts";
import { quantilesOf } from "../k6/result.ts";
import { measureSerially, measureTextbook, type SerialTimes } from "./baselines.ts";
import { type BenchOutbox, type BenchServers, createBenchOutbox } from "./outbox.ts";
import { startRelayProcess } from "./relay-process.ts";

export interface RelayBenchOptions extends BenchServers {
  /** Of each drain. */
  readonly rows: number;
  /** Of the textbook relay, which is slow. */
  readonly textbookRows: number;
  /** Rows that lie published in the table, for the drain beside them and for the one beside the archive. */
  readonly publishedRows: number;
  /** How often the drains are measured in turn with what they are compared with; the median of the ratios counts. */
  readonly rounds: number;
  /** Of the latencies: for the relay, and again for the floor. */
  readonly latencySeconds: number;
  readonly idleSeconds: number;
  /** Told what is done next. */
  readonly report: (line: string) => void;
}

/** Rates in rows a second. */
export interface RelayBenchResult {
  readonly rows: number;
  readonly drainRowsPerSecond: number;
  readonly serialBoundRowsPerSecond: number;
  /** The median round's, as the rates are: for who wants to know where the time goes. */
  readonly serialTimes: SerialTimes;
  readonly textbookRows: number;
  readonly textbookRowsPerSecond: number;
  readonly serialBoundRatio: number;
  readonly textbookRatio: number;
  readonly publishedRows: number;
  readonly publishedRatio: number;
  readonly archivingRatio: number;
  /** Commit → visible to a consumer, and the same where the process produces by itself, in milliseconds. */
  readonly latencyMs: Quantiles;
  readonly floorLatencyMs: Quantiles;
  readonly latencyOverFloorP50Ms: number;
  readonly latencyOverFloorP99Ms: number;
  readonly idleQueriesPerSecond: number;
  readonly idleCpuPercent: number;
  readonly memoryMaxMegabytes: number;
}

/** A relay's pages. */
const batchRows = 200;
/** Of the rows of a drain, added to them and not counted: until a process has compiled what is hot. */
const warmUpShare = 0.1;
const transactionsPerSecond = 100;
/** Blocks of the relay and of the floor in turn, so that what else the machine does meets both. */
const latencyBlocks = 4;
const latencyWarmUpSeconds = 1;
const arrivalTimeoutMs = 20_000;
/** How long a relay is left alone before it counts as idle, in times of what is measured. */
const idleSettleFactor = 3;

/** Runs all of it, on servers that nobody else uses meanwhile. */
export async function benchmarkRelay(options: RelayBenchOptions): Promise<RelayBenchResult> {
  const { rows, rounds, report } = options;
  const outbox = await createBenchOutbox(options);
  let memoryMaxMegabytes = 0;
  const noteMemory = (megabytes: number) => {
    memoryMaxMegabytes = Math.max(memoryMaxMegabytes, megabytes);
  };
  try {
    const drain = (further: Partial<DrainOptions> = {}) => measureDrain(outbox, { rows, noteMemory, ...further });
    const bounds: { times: SerialTimes; drained: number; ratio: number }[] = [];
    const textbooks: { rowsPerSecond: number; ratio: number }[] = [];
    const archivings: number[] = [];
    for (let round = 1; round <= rounds; round++) {
      report(`Round ${round} of ${rounds}: serial bound, relay, textbook relay, relay while archiving …`);
      const times = await measureBound(outbox, rows);
      const drained = await drain();
      bounds.push({ times, drained, ratio: drained / rowsPerSecondOf(times) });
      const rowsPerSecond = await measureTextbookRelay(outbox, options.textbookRows);
      textbooks.push({ rowsPerSecond, ratio: drained / rowsPerSecond });
      archivings.push((await drain({ publishedRows: rows, archives: true })) / drained);
    }
    const textbook = medianOf(textbooks, (it) => it.ratio);
    const median = medianOf(bounds, (it) => it.ratio);
    const { times: serialTimes, drained: drainRowsPerSecond, ratio: serialBoundRatio } = median;
    const serialBoundRowsPerSecond = rowsPerSecondOf(serialTimes);

    report("Latency at 100 transactions a second, and its floor …");
    await outbox.empty();
    const latency = await measureLatency(outbox, { seconds: options.latencySeconds, noteMemory });
    report("Idle …");
    const idle = await measureIdle(outbox, { seconds: options.idleSeconds, noteMemory });

    const { publishedRows } = options;
    report(`Alone and beside ${publishedRows} published rows, ${rows} rows …`);
    const alone = await drain();
    const beside = await drain({ publishedRows });
    return {
      rows,
      drainRowsPerSecond,
      serialBoundRowsPerSecond,
      serialTimes,
      textbookRows: options.textbookRows,
      textbookRowsPerSecond: textbook.rowsPerSecond,
      serialBoundRatio,
      textbookRatio: textbook.ratio,
      publishedRows,
      publishedRatio: beside / alone,
      archivingRatio: medianOf(archivings, (it) => it),
      latencyMs: latency.relay,
      floorLatencyMs: latency.floor,
      latencyOverFloorP50Ms: latency.relay.p50 - latency.floor.p50,
      latencyOverFloorP99Ms: latency.relay.p99 - latency.floor.p99,
      ...idle,
      memoryMaxMegabytes,
    };
  } finally {
    await outbox.drop();
  }
}

function medianOf<T>(values: readonly T[], by: (value: T) => number): T {
  const middle = values.toSorted((a, b) => by(a) - by(b))[Math.floor((values.length - 1) / 2)];
  if (middle === undefined) throw new Error("Nothing was measured.");
  return middle;
}

/** The bound is strict: making the records is no part of it, though the relay has to. */
function rowsPerSecondOf({ rows, readAndMarkMs, produceMs }: SerialTimes): number {
  return (rows * 1_000) / (readAndMarkMs + produceMs);
}

const warmUpOf = (rows: number) => Math.ceil((rows * warmUpShare) / batchRows) * batchRows;

async function measureBound(outbox: BenchOutbox, rows: number): Promise<SerialTimes> {
  await outbox.empty();
  const warmUpRows = warmUpOf(rows);
  await outbox.fill(warmUpRows + rows, "PENDING");
  return await measureSerially(outbox, { batchRows, warmUpRows });
}

async function measureTextbookRelay(outbox: BenchOutbox, rows: number): Promise<number> {
  await outbox.empty();
  const warmUpRows = warmUpOf(rows);
  await outbox.fill(warmUpRows + rows, "PENDING");
  return await measureTextbook(outbox, warmUpRows);
}

type NoteMemory = (megabytes: number) => void;

interface DrainOptions {
  readonly rows: number;
  readonly noteMemory: NoteMemory;
  readonly publishedRows?: number;
  readonly archives?: boolean;
}

/** Rows a second of a relay that is started on a pile, by the database's clock, from the last row of the warm-up on. */
async function measureDrain(outbox: BenchOutbox, options: DrainOptions): Promise<number> {
  const { table, archiveTable, database } = outbox;
  await outbox.empty();
  await outbox.fill(options.publishedRows ?? 0, "PUBLISHED");
  const warmUpRows = warmUpOf(options.rows);
  const wanted = warmUpRows + options.rows;
  await outbox.fill(wanted, "PENDING");
  const [first] = await database.query<{ seq: string }>(
    `SELECT CAST(seq AS CHAR) AS seq FROM ${table} WHERE status = 'PENDING' ORDER BY ${table}.seq LIMIT 1`,
  );
  const recordsBefore = await outbox.recordsCount();
  const relay = await startRelayProcess(
    outbox,
    options.archives === true ? { RELAY_ARCHIVE_AFTER_MS: "0", RELAY_ARCHIVE_INTERVAL_MS: "100" } : {},
  );
  try {
    await outbox.drained(recordsBefore + wanted);
    options.noteMemory(await relay.memoryMaxMegabytes());
  } finally {
    await relay.stop();
  }
  const added = (await outbox.recordsCount()) - recordsBefore;
  if (added !== wanted) throw new Error(`${wanted} events became ${added} records.`);
  // What was archived meanwhile is in the other table. The seqs of one transaction are contiguous here: nobody else inserts.
  const [span] = await database.query<{ seconds: string }>(
    `SELECT TIMESTAMPDIFF(MICROSECOND, MAX(CASE WHEN seq < CAST(? AS UNSIGNED) THEN published_at END),
                          MAX(published_at)) / 1000000 AS seconds
       FROM (SELECT seq, published_at FROM ${table} WHERE seq >= CAST(? AS UNSIGNED)
             UNION ALL SELECT seq, published_at FROM ${archiveTable} WHERE seq >= CAST(? AS UNSIGNED)) AS event`,
    [String(BigInt(first?.seq ?? 0) + BigInt(warmUpRows)), first?.seq, first?.seq],
  );
  return options.rows / Number(span?.seconds);
}

/** From the answer to the commit, or from before the send, until a consumer in this process has the record. */
async function measureLatency(
  outbox: BenchOutbox,
  { seconds, noteMemory }: { readonly seconds: number; readonly noteMemory: NoteMemory },
): Promise<{ readonly relay: Quantiles; readonly floor: Quantiles }> {
  const arrivals = new Map<string, number>();
  const relay = await startRelayProcess(outbox);
  const hints = openHintSender(outbox.service, [relay.hints]);
  const producer = await openProducer({ ...outbox.kafka, timeoutMs: 2_000 });
  const consumer = await consumeTopic({
    ...outbox.kafka,
    groupId: outbox.topic,
    topic: outbox.topic,
    from: "latest",
    commitOffsets: false,
    partitionsConcurrently: 12,
    batchSizeMax: 1_000,
    async onBatch(records) {
      const nowMs = performance.now();
      for (const { headers } of records) arrivals.set(String(headers?.ce_id), nowMs);
    },
    onCrash(error) {
      throw error;
    },
  });
  const viaRelay = async () => {
    const id = await outbox.append();
    const committedMs = performance.now();
    hints.send();
    return { id, startedMs: committedMs };
  };
  const directly = async () => {
    const id = Bun.randomUUIDv7();
    const startedMs = performance.now();
    await producer.send(outbox.topic, [directRecord(id)]);
    return { id, startedMs };
  };
  const measureBlock = async (work: () => Promise<{ id: string; startedMs: number }>, blockSeconds: number) => {
    const begunMs = performance.now();
    const sends: Promise<{ id: string; startedMs: number }>[] = [];
    for (let number = 0; number < blockSeconds * transactionsPerSecond; number++) {
      await sleep(Math.max(0, begunMs + (number * 1_000) / transactionsPerSecond - performance.now()));
      sends.push(work());
    }
    const sent = await Promise.all(sends);
    const deadlineMs = performance.now() + arrivalTimeoutMs;
    while (!sent.every(({ id }) => arrivals.has(id))) {
      if (performance.now() > deadlineMs) throw new Error("An event did not arrive.");
      await sleep(20);
    }
    return sent.map(({ id, startedMs }) => (arrivals.get(id) ?? 0) - startedMs);
  };
  try {
    while (!consumer.isReady()) await sleep(20);
    const relayMs: number[] = [];
    const floorMs: number[] = [];
    for (const work of [viaRelay, directly]) await measureBlock(work, latencyWarmUpSeconds);
    for (let block = 0; block < latencyBlocks; block++) {
      relayMs.push(...(await measureBlock(viaRelay, seconds / latencyBlocks)));
      floorMs.push(...(await measureBlock(directly, seconds / latencyBlocks)));
    }
    noteMemory(await relay.memoryMaxMegabytes());
    return { relay: requireQuantiles(relayMs), floor: requireQuantiles(floorMs) };
  } finally {
    hints.close();
    await Promise.all([consumer.close(), producer.close(), relay.stop()]);
  }
}

function directRecord(id: string) {
  const row = {
    id,
    aggregateId: id,
    type: "shop.order.v1.OrderCompleted",
    payload: JSON.stringify({ orderId: id }),
    headers: null,
    occurredAt: new Date(),
    seq: "1",
  };
  return toRecord(row, { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry });
}

function requireQuantiles(values: readonly number[]): Quantiles {
  const quantiles = quantilesOf(values);
  if (quantiles === undefined) throw new Error("Nothing was measured.");
  return quantiles;
}

/** What a relay costs that has nothing to do: by the server's counter of statements, and the kernel's of CPU time. */
async function measureIdle(
  outbox: BenchOutbox,
  { seconds, noteMemory }: { readonly seconds: number; readonly noteMemory: NoteMemory },
): Promise<{ readonly idleQueriesPerSecond: number; readonly idleCpuPercent: number }> {
  const relay = await startRelayProcess(outbox);
  // One connection, so that only what is asked here is added to what is counted.
  const database = openDatabase({ url: outbox.relayUrl, connectionsMax: 1 });
  const read = async () => {
    const [row] = await database.query<{ Value: string }>("SHOW GLOBAL STATUS LIKE 'Questions'");
    const cpuSeconds = (await readProcessTimes({ relay: relay.pid })).get("relay")?.seconds ?? Number.NaN;
    return { questions: Number(row?.Value), cpuSeconds, atMs: performance.now() };
  };
  try {
    // A process that has just started is not idle, it compiles.
    await sleep(idleSettleFactor * seconds * 1_000);
    const before = await read();
    await sleep(seconds * 1_000);
    const after = await read();
    const elapsedSeconds = (after.atMs - before.atMs) / 1_000;
    noteMemory(await relay.memoryMaxMegabytes());
    return {
      // The second reading counts itself.
      idleQueriesPerSecond: (after.questions - before.questions - 1) / elapsedSeconds,
      idleCpuPercent: ((after.cpuSeconds - before.cpuSeconds) / elapsedSeconds) * 100,
    };
  } finally {
    await Promise.all([relay.stop(), database.close()]);
  }
}
