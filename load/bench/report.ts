/** What a benchmark of the relay came to, and what it should. Pure. */
import { formatTable } from "../k6/result.ts";
import type { RelayBenchResult } from "./relay.ts";

/** A figure with its goal. */
interface Goal {
  readonly name: string;
  readonly value: number;
  readonly digits: number;
  readonly unit: string;
  readonly isMet: boolean;
  readonly goal: string;
}

/** The goals, with what was measured. */
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
    atLeast("drain, against the serial bound", result.serialBoundRatio, 0.9),
    atLeast("drain, against a textbook relay", result.textbookRatio, 10, 1),
    atLeast(`drain beside ${result.publishedRows.toLocaleString("en-US")} published rows`, result.publishedRatio, 0.8),
    atLeast("drain while archiving", result.archivingRatio, 0.8),
    atMost("commit → visible, p50 over the floor", result.latencyOverFloorP50Ms, 2, " ms"),
    atMost("commit → visible, p99 over the floor", result.latencyOverFloorP99Ms, 10, " ms"),
    atMost("idle, queries a second", result.idleQueriesPerSecond, 6, ""),
    atMost("idle, CPU", result.idleCpuPercent, 0.5, " %", 2),
    atMost("memory at most", result.memoryMaxMegabytes, 120, " MB", 0),
  ];
}

/** The table that the run ends with. */
export function formatRelayBench(result: RelayBenchResult): string {
  const { serialTimes } = result;
  const rate = (value: number) => `${Math.round(value).toLocaleString("en-US")} rows/s`;
  const milliseconds = (value: number) => `${value.toFixed(1)} ms`;
  return [
    ...formatTable([
      ["measured", ""],
      [`relay, ${result.rows.toLocaleString("en-US")} rows`, rate(result.drainRowsPerSecond)],
      ["serial bound: read and mark + produce", rate(result.serialBoundRowsPerSecond)],
      ["  only read and mark", rate((serialTimes.rows * 1_000) / serialTimes.readAndMarkMs)],
      ["  only produce", rate((serialTimes.rows * 1_000) / serialTimes.produceMs)],
      ["  (encode, no part of it)", rate((serialTimes.rows * 1_000) / serialTimes.encodeMs)],
      [
        `textbook relay, on ${result.textbookRows.toLocaleString("en-US")} rows only`,
        rate(result.textbookRowsPerSecond),
      ],
      ["commit → visible, p50", milliseconds(result.latencyMs.p50)],
      ["commit → visible, p99", milliseconds(result.latencyMs.p99)],
      ["floor (produced directly), p50", milliseconds(result.floorLatencyMs.p50)],
      ["floor (produced directly), p99", milliseconds(result.floorLatencyMs.p99)],
    ]),
    "",
    ...formatTable([
      ["against its goal", "", "goal", ""],
      ...goalsOf(result).map(({ name, value, digits, unit, goal, isMet }) => [
        name,
        `${value.toFixed(digits)}${unit}`,
        goal,
        isMet ? "met" : "MISSED",
      ]),
    ]),
  ].join("\n");
}
