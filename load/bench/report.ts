/** Compares the results of the relay's benchmark with their goals, and renders both. Pure. */
import { formatTable } from "../../services/kit/table.ts";
import type { RelayBenchResult } from "./relay.ts";

/** A figure and its goal. */
interface Goal {
  readonly name: string;
  readonly value: number;
  readonly digits: number;
  readonly unit: string;
  readonly isMet: boolean;
  readonly goal: string;
}

/** The figures that have a goal. */
export function goalsOf(result: RelayBenchResult): readonly Goal[] {
  const atLeast = (name: string, value: number, goal: number, digits = 2): Goal => ({
    name,
    value,
    digits,
    unit: "",
    isMet: value >= goal,
    goal: `≥ ${goal}`,
  });
  const atMost = (name: string, value: number, goal: number, unit: string, digits = 1): Goal => ({
    name,
    value,
    digits,
    unit,
    isMet: value <= goal,
    goal: `≤ ${goal}${unit}`,
  });
  return [
    atLeast("drain, relative to the serial bound", result.serialBoundRatio, 0.9),
    atLeast("drain, relative to a textbook relay", result.textbookRatio, 10, 1),
    atLeast(
      `drain beside ${result.publishedRows.toLocaleString("en-US")} published rows, relative to a drain alone`,
      result.publishedRatio,
      0.8,
    ),
    atLeast("drain while archiving, relative to a drain alone", result.archivingRatio, 0.8),
    atMost("commit → consumer, p50 over the floor", result.latencyOverFloorP50Ms, 2, " ms"),
    atMost("commit → consumer, p99 over the floor", result.latencyOverFloorP99Ms, 10, " ms"),
    atMost("idle, queries a second", result.idleQueriesPerSecond, 6, ""),
    atMost("idle, CPU", result.idleCpuPercent, 0.5, " %", 2),
    atMost("memory, peak", result.memoryMaxMegabytes, 120, " MB", 0),
  ];
}

/** Renders the measured values, and the figures with their goals. */
export function formatRelayBench(result: RelayBenchResult): string {
  const { serialTimes } = result;
  const rate = (value: number) => `${Math.round(value).toLocaleString("en-US")} rows/s`;
  const milliseconds = (value: number) => `${value.toFixed(1)} ms`;
  return [
    formatTable(
      ["measured", ""],
      [
        [`relay, ${result.rows.toLocaleString("en-US")} rows`, rate(result.drainRowsPerSecond)],
        ["serial bound: read and mark, then produce", rate(result.serialBoundRowsPerSecond)],
        ["serial bound: read and mark alone", rate((serialTimes.rows * 1_000) / serialTimes.readAndMarkMs)],
        ["serial bound: produce alone", rate((serialTimes.rows * 1_000) / serialTimes.produceMs)],
        ["encode alone (not in the serial bound)", rate((serialTimes.rows * 1_000) / serialTimes.encodeMs)],
        [`textbook relay, ${result.textbookRows.toLocaleString("en-US")} rows`, rate(result.textbookRowsPerSecond)],
        ["commit → consumer, p50", milliseconds(result.latencyMs.p50)],
        ["commit → consumer, p99", milliseconds(result.latencyMs.p99)],
        ["floor (produced directly), p50", milliseconds(result.floorLatencyMs.p50)],
        ["floor (produced directly), p99", milliseconds(result.floorLatencyMs.p99)],
      ],
      { rightAligned: [1] },
    ),
    "",
    formatTable(
      ["compared with its goal", "", "goal", ""],
      goalsOf(result).map(({ name, value, digits, unit, goal, isMet }) => [
        name,
        `${value.toFixed(digits)}${unit}`,
        goal,
        isMet ? "met" : "MISSED",
      ]),
      { rightAligned: [1, 2] },
    ),
  ].join("\n");
}
