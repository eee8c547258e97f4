/** The program that main.ts runs on the test servers. */
import { crashAtPoints } from "./crash-points.ts";
import { formatCrashPoints, isClean } from "./format.ts";

const startedMs = performance.now();
const results = await crashAtPoints({ times: Number(process.argv[2]) }, ({ point, witnesses }) =>
  console.log(`${point}: ${witnesses} processes died there`),
);
console.log(`\n${formatCrashPoints(results)}\n${((performance.now() - startedMs) / 1_000).toFixed(0)} s`);
process.exit(results.every(isClean) ? 0 : 1);
