/** The sweep itself, on servers that are there. */

import { sweep } from "./crash-points.ts";
import { formatSweep } from "./format.ts";

const startedMs = performance.now();
const results = await sweep({ times: Number(process.argv[2]) }, ({ point, witnesses }) =>
  console.log(`${point}: ${witnesses} died there`),
);
console.log(`\n${formatSweep(results)}\n${((performance.now() - startedMs) / 1_000).toFixed(0)} s`);
process.exit(results.every(({ times, witnesses }) => witnesses === times) ? 0 : 1);
