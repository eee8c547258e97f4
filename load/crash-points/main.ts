/** `npm run sweep`: kills processes at every crash point of the delivery code, on servers of its own. */
import { join } from "node:path";
import { runOnTestServers } from "../../services/stack/dev/test-servers.ts";
import { printError } from "../../services/stack/errors.ts";
import { parseArguments, parseNumber } from "../arguments.ts";

const root = join(import.meta.dir, "../..");
const usage = `npm run sweep -- [options]   kills processes at every crash point of the delivery code
  --times N   how often at each point (default 3)`;

try {
  const options = { times: { type: "string", default: "3" } } as const;
  const { values } = parseArguments(process.argv.slice(2), { options, usage });
  const times = parseNumber("--times", values.times, { min: 1, max: 10_000 }, usage);
  process.exit(await runOnTestServers(root, ["load/crash-points/on-servers.ts", String(times)]));
} catch (error) {
  printError(error);
  process.exit(1);
}
