/** What a run came to, whether that is good, and how it is shown. Pure. */
import type { LoadSummary, Quantiles } from "./plan.ts";

export interface LoadResult {
  /** The first eight digits of the run's request ids. */
  readonly run: string;
  readonly ratePerSecond: number;
  readonly seconds: number;
  /** Orders of the run in Order's database. */
  readonly placed: number;
  readonly completed: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly notFinal: number;
  /** Acknowledged to the client and not in the database. */
  readonly lost: number;
  readonly client: LoadSummary;
  /** `updated_at` − `created_at` of every final order: Order's own rows, by the database's clock. */
  readonly finalMs: Quantiles | undefined;
  /** By process, from before the first order until all were final; k6 among them. */
  readonly cpuSeconds: Readonly<Record<string, number>>;
  /** Of the whole machine in the same time. */
  readonly machineCpuSeconds: number;
  /** The time that the CPU seconds were counted over. */
  readonly wallSeconds: number;
}

/** Nearest-rank quantiles; undefined for no values. */
export function quantilesOf(values: readonly number[]): Quantiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { count: sorted.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

/** What must not be, in words; empty for a good run. */
export function faultsOf(result: LoadResult): readonly string[] {
  const { client } = result;
  const counts: readonly (readonly [number, string])[] = [
    [client.errors, "errors"],
    [client.droppedIterations, "dropped iterations"],
    [result.lost, "acknowledged orders not in the database"],
    [result.notFinal, "orders not final"],
    [client.watchesNotFinal, "watches without a final status"],
  ];
  const faults = counts.filter(([count]) => count > 0).map(([count, what]) => `${whole(count)} ${what}`);
  return result.placed === 0 ? [...faults, "no orders were placed"] : faults;
}

/** The table that a run ends with. */
export function formatResult(result: LoadResult): string {
  const { client } = result;
  const counts = [
    ["placed", result.placed],
    ["COMPLETED", result.completed],
    ...Object.entries(result.failed)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([reason, count]) => [`FAILED ${reason}`, count] as const),
    ["not final", result.notFinal],
    ["lost", result.lost],
    ["errors", client.errors],
    ["dropped iterations", client.droppedIterations],
    ["watched", client.watched],
    ["watched, not final", client.watchesNotFinal],
  ] as const;
  const times = [
    ["PlaceOrder answered", client.answeredMs],
    ["placed → final, by the database", result.finalMs],
    ["placed → final, as watched", client.watchedFinalMs],
  ] as const;
  const cpu = Object.entries(result.cpuSeconds).sort(([, a], [, b]) => b - a);
  const cpuTotal = cpu.reduce((sum, [, seconds]) => sum + seconds, 0);
  const coresOf = (seconds: number) => (Math.max(0, seconds) / result.wallSeconds).toFixed(2);
  const microsecondsPerOrder = result.placed === 0 ? 0 : (cpuTotal / result.placed) * 1_000_000;
  return [
    `Run ${result.run}: ${whole(result.ratePerSecond)} orders a second for ${result.seconds} s`,
    "",
    ...formatTable([["orders", ""], ...counts.map(([name, count]) => [name, whole(count)])]),
    "",
    ...formatTable([
      ["milliseconds", "p50", "p95", "p99", "max"],
      ...times.map(([name, quantiles]) => [name, ...formatQuantiles(quantiles)]),
    ]),
    "",
    ...formatTable([
      ["CPU seconds", ""],
      ...cpu.map(([name, seconds]) => [name, seconds.toFixed(2)]),
      ["all", cpuTotal.toFixed(2)],
    ]),
    "",
    `${coresOf(cpuTotal)} cores over ${result.wallSeconds.toFixed(1)} s, ${whole(microsecondsPerOrder)} µs of CPU an order.`,
    // Latencies are the system's own only where nothing else wanted the machine.
    `Other programs on this machine took ${coresOf(result.machineCpuSeconds - cpuTotal)} cores meanwhile.`,
  ].join("\n");
}

/** One step of the ramp, as a line. */
export function formatStep(result: LoadResult, faults: readonly string[]): string {
  const verdict = faults.length === 0 ? "holds" : `does not hold: ${faults.join(", ")}`;
  const [p50 = "", , p99 = ""] = formatQuantiles(result.finalMs);
  return `${whole(result.ratePerSecond).padStart(6)}/s  p50 ${p50.padStart(8)}  p99 ${p99.padStart(8)} ms  ${verdict}`;
}

/** Rows as lines, the first column to the left and the others to the right. */
export function formatTable(rows: readonly (readonly string[])[]): readonly string[] {
  const columnsCount = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columnsCount }, (_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}

function formatQuantiles(quantiles: Quantiles | undefined): readonly string[] {
  if (quantiles === undefined) return ["–", "–", "–", "–"];
  return [quantiles.p50, quantiles.p95, quantiles.p99, quantiles.max].map((value) => value.toFixed(1));
}

function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}
