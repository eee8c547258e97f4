/** `npm run mutants -- delivery`: shows whether the tests would notice mistakes in the delivery code. */
import { join } from "node:path";
import { runOnTestServers } from "../../services/stack/dev/test-servers.ts";
import { printError, StackError } from "../../services/stack/errors.ts";
import { parseArguments } from "../arguments.ts";

const root = join(import.meta.dir, "../..");
const usage = `npm run mutants -- delivery   breaks the delivery code on purpose; a named test must fail each time
For the domain code: npm run explore -- --mutants`;

try {
  const { positionals } = parseArguments(process.argv.slice(2), { options: {}, usage, allowPositionals: true });
  if (positionals.join(" ") !== "delivery") throw new StackError(usage);
  process.exit(await runOnTestServers(root, ["load/mutation/on-servers.ts"]));
} catch (error) {
  printError(error);
  process.exit(1);
}
