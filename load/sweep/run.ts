/** `npm run sweep -- --times N`: kills processes at every point of the delivery, on a database and a broker of its own. */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { environment } from "../../services/kit/config.ts";
import { withTestServers } from "../../services/stack/test-servers.ts";

const root = join(import.meta.dir, "../..");

try {
  const { values } = parseArgs({ options: { times: { type: "string", default: "3" } } });
  const times = Number(values.times);
  if (!Number.isInteger(times) || times < 1) throw new Error(`--times is a whole number, at least 1: ${values.times}`);
  // The sweep finds its servers by its environment, as the tests do.
  process.exitCode = await withTestServers(root, async (variables) => {
    const child = Bun.spawn([process.execPath, "load/sweep/on-servers.ts", String(times)], {
      cwd: root,
      env: { ...environment(), ...variables },
      stdio: ["ignore", "inherit", "inherit"],
    });
    return await child.exited;
  });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  console.error("npm run sweep [-- --times N]");
  process.exitCode = 1;
}
process.exit();
