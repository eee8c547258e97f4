/** `npm run check`: every check that needs no running system. All of them run, even if one fails. */

import { join } from "node:path";
import { messageOf } from "../../kit/errors.ts";
import { requireCommand } from "../run-command.ts";

const root = join(import.meta.dir, "../../..");
const proto = join(root, "proto");

const checks: Readonly<Record<string, () => Promise<void>>> = {
  "types (tsc)": () => requireCommand(["tsc", "--noEmit", "--project", root], { folder: root }),
  "lint and format (Biome)": () => requireCommand(["biome", "check", "--error-on-warnings", "."], { folder: root }),
  "Protobuf style (buf lint, buf format)": async () => {
    await requireCommand(["buf", "lint"], { folder: proto });
    await requireCommand(["buf", "format", "--diff", "--exit-code"], { folder: proto });
  },
  "Protobuf compatibility with the last release (buf breaking)": () =>
    requireCommand(["buf", "breaking", "--against", "released.binpb"], { folder: proto }),
  "generated code is up to date": () =>
    requireCommand([process.execPath, "services/stack/dev/generate.ts", "--check"], { folder: root }),
  "tidy rules": () =>
    requireCommand([process.execPath, "test", "services/stack/dev/tidy.unit.test.ts"], { folder: root }),
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed++;
    console.log(`failed  ${name}\n${messageOf(error)}\n`);
  }
}
if (failed > 0) {
  console.log(`${failed} of ${Object.keys(checks).length} checks failed.`);
  process.exit(1);
}
