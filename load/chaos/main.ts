/** `npm run chaos`: injects faults into the real processes under load, on a stack of its own. */
import { join } from "node:path";
import { environment } from "../../services/kit/config.ts";
import { printError } from "../../services/stack/errors.ts";
import { parseChaosArguments } from "./arguments.ts";
import { runChaos } from "./chaos.ts";
import { formatChaos } from "./report.ts";
import { readChaosSettings } from "./settings.ts";

const stopping = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => stopping.abort());
try {
  const { minutes, brokers, ...options } = parseChaosArguments(process.argv.slice(2));
  const result = await runChaos({
    ...options,
    settings: readChaosSettings(environment(), join(import.meta.dir, "../.."), brokers),
    durationMs: minutes * 60_000,
    signal: stopping.signal,
  });
  console.log(`\n${formatChaos(result)}`);
  process.exit(result.problems.length === 0 ? 0 : 1);
} catch (error) {
  printError(error);
  process.exit(1);
}
