import { join } from "node:path";
import { runCommand } from "../stack/run-command.ts";

const root = join(import.meta.dir, "../..");

export interface OpsRun {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
  /** The output, which must be one JSON document. */
  // biome-ignore lint/suspicious/noExplicitAny: a document of any shape, compared with what the test expects
  document(): any;
}

/** Runs `npm run ops` without a terminal. `env` is added to our own environment. */
export async function runOps(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<OpsRun> {
  const command = [process.execPath, "services/ops/main.ts", ...args];
  const { exitCode, stdout, stderr } = await runCommand(command, { folder: root, env });
  return { code: exitCode, output: stdout, errors: stderr, document: () => JSON.parse(stdout) };
}
