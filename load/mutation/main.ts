/** `npm run mutants -- delivery`: whether the tests would notice if the delivery code were wrong. */
import { join } from "node:path";
import { runOnTestServers } from "../../services/stack/dev/test-servers.ts";

const root = join(import.meta.dir, "../..");

if (process.argv.length === 3 && process.argv[2] === "delivery") {
  process.exit(await runOnTestServers(root, ["load/mutation/on-servers.ts"]));
}
console.error("npm run mutants -- delivery (for the domain code: npm run explore -- --mutants)");
process.exit(1);
