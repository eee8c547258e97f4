/** The result of a run, its problems, and its rendering. Pure. */
import { formatTable } from "../../services/kit/table.ts";
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
  /** Orders that were acknowledged and are not in the database. */
  readonly lost: number;
  readonly client: LoadSummary;
  /** From `created_at` to `updated_at` of every final order, by the database's clock. */
  readonly finalMs: Quantiles | undefined;
  /** By process, k6 included, from before the first order until all orders were final. */
  readonly cpuSeconds: Readonly<Record<string, number>>;
  /** Of the whole machine, in the same time. */
  readonly machineCpuSeconds: number;
  /** How long CPU seconds were counted. */
  readonly wallSeconds: number;
}

/** Nearest-rank quantiles. Undefined if there are no values. */
export function quantilesOf(values: readonly number[]): Quantiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { count: sorted.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

/** What is wrong with a run; empty for a good one. */
export function problemsOf(result: LoadResult): readonly string[] {
  const { client } = result;
  const counts: readonly (readonly [number, string])[] = [
    [client.errors, "errors"],
    [client.droppedIterations, "dropped iterations"],
    [result.lost, "acknowledged orders not in the database"],
    [result.notFinal, "orders not final"],
    [client.watchesNotFinal, "watches without a final status"],
  ];
  const problems = counts.filter(([count]) => count > 0).map(([count, what]) => `${whole(count)} ${what}`);
  return result.placed === 0 ? [...problems, "no orders were placed"] : problems;
}

/** Renders orders, latencies and CPU time. */
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
    figures(
      ["orders", ""],
      counts.map(([name, count]) => [name, whole(count)]),
    ),
    "",
    figures(
      ["milliseconds", "p50", "p95", "p99", "max"],
      times.map(([name, quantiles]) => [name, ...formatQuantiles(quantiles)]),
    ),
    "",
    figures(
      ["CPU seconds", ""],
      [...cpu.map(([name, seconds]) => [name, seconds.toFixed(2)]), ["all", cpuTotal.toFixed(2)]],
    ),
    "",
    `${coresOf(cpuTotal)} cores over ${result.wallSeconds.toFixed(1)} s, ${whole(microsecondsPerOrder)} µs of CPU per order.`,
    // The latencies are the system's own only if other programs left the machine alone.
    `Other programs on this machine used ${coresOf(result.machineCpuSeconds - cpuTotal)} cores at the same time.`,
  ].join("\n");
}

/** Renders one step of the ramp as a line. */
export function formatStep(result: LoadResult, problems: readonly string[]): string {
  const verdict = problems.length === 0 ? "holds" : `does not hold: ${problems.join(", ")}`;
  const [p50 = "", , p99 = ""] = formatQuantiles(result.finalMs);
  return `${whole(result.ratePerSecond).padStart(6)}/s  p50 ${p50.padStart(8)}  p99 ${p99.padStart(8)} ms  ${verdict}`;
}

/** A table whose first column is text and whose other columns are figures. */
function figures(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  return formatTable(headings, rows, { rightAligned: headings.map((_, column) => column).slice(1) });
}

function formatQuantiles(quantiles: Quantiles | undefined): readonly string[] {
  if (quantiles === undefined) return ["–", "–", "–", "–"];
  return [quantiles.p50, quantiles.p95, quantiles.p99, quantiles.max].map((value) => value.toFixed(1));
}

function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}
