/** The text that `npm run sweep` prints. */
import { formatTable } from "../../services/kit/table.ts";
import type { PointResult } from "./crash-points.ts";

/** True if a process died at the point in every run, and nothing was wrong afterwards. */
export function isClean({ times, witnesses, problems }: PointResult): boolean {
  return witnesses === times && problems.length === 0;
}

/** A table of all points, and the problems below it. */
export function formatCrashPoints(results: readonly PointResult[]): string {
  const rows = results.map((it) => [it.point, it.times, it.witnesses, it.duplicates, isClean(it) ? "ok" : "WRONG"]);
  const problems = results.flatMap((it) => it.problems.map((problem) => `${it.point}: ${problem}`));
  return [formatTable(["point", "times", "witnesses", "duplicates", "result"], rows), ...problems].join("\n");
}
