/** `npm run sweep -- --times N`: kills processes at every point of the delivery, on a database and a broker of its own. */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { messageOf } from "../../services/kit/errors.ts";
import { runOnTestServers } from "../../services/stack/dev/test-servers.ts";

const root = join(import.meta.dir, "../..");

process.exit(await runOnTestServers(root, ["load/crash-points/on-servers.ts", String(readTimes())]));

function readTimes(): number {
  try {
    const { values } = parseArgs({ options: { times: { type: "string", default: "3" } } });
    const times = Number(values.times);
    if (Number.isInteger(times) && times > 0) return times;
    console.error(`--times is a whole number, at least 1: ${values.times}`);
  } catch (error) {
    console.error(messageOf(error));
  }
  console.error("npm run sweep [-- --times N]");
  process.exit(1);
}
