/** The benchmark of the relay. Rates depend on the machine, so it reports ratios of what was measured in the same run. */
import type { Quantiles } from "../k6/plan.ts";
import type { SerialTimes } from "./baselines.ts";
import { type DrainOptions, measureDrain, measureSerialBound, measureTextbookRelay } from "./drain.ts";
import { measureIdle } from "./idle.ts";
import { measureLatency } from "./latency.ts";
import { BenchOutbox, type BenchServers } from "./outbox.ts";

export interface RelayBenchOptions extends BenchServers {
  /** The backlog of each drain. */
  readonly rows: number;
  /** The backlog of the textbook relay, which is slow. */
  readonly textbookRows: number;
  /** Published rows in the outbox in the drain beside published rows. */
  readonly publishedRows: number;
  /** How often each drain is measured, in turn with its baselines. The median of the ratios counts. */
  readonly rounds: number;
  /** For the latency through the relay, and again for the floor. */
  readonly latencySeconds: number;
  readonly idleSeconds: number;
  /** Called with the next step, for progress. */
  readonly report: (line: string) => void;
}

/** Rates are in rows a second. */
export interface RelayBenchResult {
  readonly rows: number;
  readonly drainRowsPerSecond: number;
  readonly serialBoundRowsPerSecond: number;
  /** Of the round with the median ratio, like the rates. Shows where the time goes. */
  readonly serialTimes: SerialTimes;
  readonly textbookRows: number;
  readonly textbookRowsPerSecond: number;
  readonly serialBoundRatio: number;
  readonly textbookRatio: number;
  readonly publishedRows: number;
  readonly publishedRatio: number;
  readonly archivingRatio: number;
  /** From the commit until a consumer has the event; the floor is the same for a record produced directly. */
  readonly latencyMs: Quantiles;
  readonly floorLatencyMs: Quantiles;
  readonly latencyOverFloorP50Ms: number;
  readonly latencyOverFloorP99Ms: number;
  readonly idleQueriesPerSecond: number;
  readonly idleCpuPercent: number;
  readonly memoryMaxMegabytes: number;
}

/** Runs the whole benchmark, on servers that nothing else uses meanwhile. */
export async function benchmarkRelay(options: RelayBenchOptions): Promise<RelayBenchResult> {
  const { rows, publishedRows, textbookRows, report } = options;
  const outbox = await BenchOutbox.create(options);
  let memoryMaxMegabytes = 0;
  const noteMemory = (megabytes: number) => {
    memoryMaxMegabytes = Math.max(memoryMaxMegabytes, megabytes);
  };
  const drain = (further: Partial<DrainOptions> = {}) => measureDrain(outbox, { rows, noteMemory, ...further });
  try {
    const drains = await measureRounds(outbox, options, drain);

    report("Latency at 100 events a second, and its floor …");
    await outbox.empty();
    const latency = await measureLatency(outbox, { seconds: options.latencySeconds, noteMemory });
    report("Idle …");
    const idle = await measureIdle(outbox, { seconds: options.idleSeconds, noteMemory });

    report(`${rows} rows, alone and beside ${publishedRows} published rows …`);
    const alone = await drain();
    const beside = await drain({ publishedRows });
    return {
      rows,
      ...drains,
      textbookRows,
      publishedRows,
      publishedRatio: beside / alone,
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

/** The drains that are compared with each other, measured one after the other in several rounds. */
async function measureRounds(
  outbox: BenchOutbox,
  { rows, rounds, textbookRows, report }: RelayBenchOptions,
  drain: (further?: Partial<DrainOptions>) => Promise<number>,
) {
  const bounds: { readonly times: SerialTimes; readonly drained: number; readonly ratio: number }[] = [];
  const textbooks: { readonly rowsPerSecond: number; readonly ratio: number }[] = [];
  const archivingRatios: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    report(`Round ${round} of ${rounds}: serial bound, relay, textbook relay, relay while archiving …`);
    const times = await measureSerialBound(outbox, rows);
    const drained = await drain();
    bounds.push({ times, drained, ratio: drained / boundRowsPerSecond(times) });
    const rowsPerSecond = await measureTextbookRelay(outbox, textbookRows);
    textbooks.push({ rowsPerSecond, ratio: drained / rowsPerSecond });
    archivingRatios.push((await drain({ publishedRows: rows, archives: true })) / drained);
  }
  const bound = medianOf(bounds, ({ ratio }) => ratio);
  const textbook = medianOf(textbooks, ({ ratio }) => ratio);
  return {
    drainRowsPerSecond: bound.drained,
    serialBoundRowsPerSecond: boundRowsPerSecond(bound.times),
    serialTimes: bound.times,
    serialBoundRatio: bound.ratio,
    textbookRowsPerSecond: textbook.rowsPerSecond,
    textbookRatio: textbook.ratio,
    archivingRatio: medianOf(archivingRatios, (ratio) => ratio),
  };
}

function medianOf<T>(values: readonly T[], by: (value: T) => number): T {
  const middle = values.toSorted((a, b) => by(a) - by(b))[Math.floor((values.length - 1) / 2)];
  if (middle === undefined) throw new Error("There is no median of nothing.");
  return middle;
}

/** The bound is strict: it leaves out encoding, which the relay has to do. */
function boundRowsPerSecond({ rows, readAndMarkMs, produceMs }: SerialTimes): number {
  return (rows * 1_000) / (readAndMarkMs + produceMs);
}
