import { environment } from "../kit/config.ts";

const timeoutMs = 600_000;

/** Runs a command to its end and returns what it printed. `env` is added to our own environment. */
export async function runCommand(
  command: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>>; readonly folder?: string } = {},
): Promise<{ readonly exitCode: number; readonly output: string }> {
  const child = Bun.spawn([...command], {
    env: { ...environment(), ...options.env },
    ...(options.folder === undefined ? {} : { cwd: options.folder }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: timeoutMs,
  });
  const [out, err, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, output: out + err };
}
