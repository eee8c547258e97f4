/** What a sweep prints. */
import type { PointResult } from "./crash-points.ts";

/** A table of all points, and what was wrong below it. */
export function formatSweep(results: readonly PointResult[]): string {
  const lines = results.map(({ point, times, witnesses, duplicates, problems }) => {
    const result = problems.length === 0 && witnesses === times ? "ok" : "WRONG";
    return [
      point.padEnd(38),
      ...[times, witnesses, duplicates].map((it) => String(it).padStart(12)),
      `  ${result}`,
    ].join("");
  });
  const head = `${"point".padEnd(38)}${["times", "witnesses", "duplicates"].map((it) => it.padStart(12)).join("")}  result`;
  const problems = results.flatMap(({ point, problems: some }) => some.map((problem) => `${point}: ${problem}`));
  return [head, ...lines, ...problems].join("\n");
}
