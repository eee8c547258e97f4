/** How fast a backlog drains: by the relay, and by the two baselines that it is compared with. */
import { measureSerially, measureTextbook, type SerialTimes } from "./baselines.ts";
import type { BenchOutbox } from "./outbox.ts";
import { startRelayProcess } from "./relay-process.ts";

/** The rows of one batch of the serial baseline: a page of the relay. */
const batchRows = 200;
/** Warm-up rows, as a share of the rows that are counted: hot code must be compiled before the measurement. */
const warmUpShare = 0.1;

const warmUpRowsOf = (rows: number) => Math.ceil((rows * warmUpShare) / batchRows) * batchRows;

export interface DrainOptions {
  readonly rows: number;
  readonly noteMemory: (megabytes: number) => void;
  /** Published rows in the outbox beside the backlog. */
  readonly publishedRows?: number;
  /** Whether the relay moves published rows to the archive meanwhile. */
  readonly archives?: boolean;
}

/**
 * Starts a relay on a backlog and measures its rate in rows a second, by the database's clock, from the last row of the
 * warm-up to the last row.
 */
export async function measureDrain(outbox: BenchOutbox, options: DrainOptions): Promise<number> {
  const { table, archiveTable, database } = outbox;
  await outbox.empty();
  await outbox.fill(options.publishedRows ?? 0, "PUBLISHED");
  const warmUpRows = warmUpRowsOf(options.rows);
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
    await outbox.untilDrained(recordsBefore + wanted);
    options.noteMemory(await relay.memoryMaxMegabytes());
  } finally {
    await relay.stop();
  }
  const added = (await outbox.recordsCount()) - recordsBefore;
  if (added !== wanted) throw new Error(`${wanted} events became ${added} records.`);
  // Archived rows are in the other table. The backlog's seqs are contiguous, since nothing else inserts.
  const [span] = await database.query<{ seconds: string }>(
    `SELECT TIMESTAMPDIFF(MICROSECOND, MAX(CASE WHEN seq < CAST(? AS UNSIGNED) THEN published_at END),
                          MAX(published_at)) / 1000000 AS seconds
       FROM (SELECT seq, published_at FROM ${table} WHERE seq >= CAST(? AS UNSIGNED)
             UNION ALL SELECT seq, published_at FROM ${archiveTable} WHERE seq >= CAST(? AS UNSIGNED)) AS event`,
    [String(BigInt(first?.seq ?? 0) + BigInt(warmUpRows)), first?.seq, first?.seq],
  );
  return options.rows / Number(span?.seconds);
}

/** Drains a backlog of `rows` rows in the steps of a serial relay. */
export async function measureSerialBound(outbox: BenchOutbox, rows: number): Promise<SerialTimes> {
  const warmUpRows = await fillBacklog(outbox, rows);
  return await measureSerially(outbox, { batchRows, warmUpRows });
}

/** Drains a backlog of `rows` rows by a textbook relay; returns rows a second. */
export async function measureTextbookRelay(outbox: BenchOutbox, rows: number): Promise<number> {
  return await measureTextbook(outbox, await fillBacklog(outbox, rows));
}

/** Empties the outbox and fills it with a warm-up and `rows` rows. Returns how many rows the warm-up has. */
async function fillBacklog(outbox: BenchOutbox, rows: number): Promise<number> {
  await outbox.empty();
  const warmUpRows = warmUpRowsOf(rows);
  await outbox.fill(warmUpRows + rows, "PENDING");
  return warmUpRows;
}
