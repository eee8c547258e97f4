import { join } from "node:path";
import { environment } from "../kit/config.ts";

/**
 * Runs a command to its end; its output is shown only when it fails. Commands of the project's dependencies are found
 * by their names.
 * @throws Error with the command and what it printed.
 */
export async function run(
  command: readonly [string, ...string[]],
  options: { readonly folder: string; readonly environment?: Readonly<Record<string, string>> },
): Promise<void> {
  const binaries = join(import.meta.dir, "../../node_modules/.bin");
  const child = Bun.spawn([Bun.which(command[0], { PATH: binaries }) ?? command[0], ...command.slice(1)], {
    cwd: options.folder,
    env: { ...environment(), PATH: `${binaries}:${environment().PATH ?? ""}`, ...options.environment },
    stdout: "pipe",
    stderr: "pipe",
    stdin: "ignore",
  });
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with code ${code}:\n${output}${errors}`.trimEnd());
}
