import { join } from "node:path";
import { environment } from "../kit/config.ts";

/** The programs of the project's dependencies: tsc, biome, buf and so on. */
const binaries = join(import.meta.dir, "../../node_modules/.bin");
const defaultTimeoutMs = 600_000;

export interface CommandOptions {
  readonly folder?: string;
  /** Added to our own environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The command is killed after this. Default: ten minutes. */
  readonly timeoutMs?: number;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Both, standard output first. */
  readonly output: string;
}

/** Runs a command to its end, without standard input. Finds the programs of the project's dependencies by name. */
export async function runCommand(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const [program = "", ...args] = command;
  const ours = environment();
  const child = Bun.spawn([Bun.which(program, { PATH: binaries }) ?? program, ...args], {
    env: { ...ours, PATH: `${binaries}:${ours.PATH ?? ""}`, ...options.env },
    ...(options.folder === undefined ? {} : { cwd: options.folder }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: options.timeoutMs ?? defaultTimeoutMs,
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr, output: stdout + stderr };
}

/**
 * Runs a command that must succeed.
 * @throws Error with the command, its exit code and what it printed.
 */
export async function requireCommand(command: readonly string[], options: CommandOptions = {}): Promise<void> {
  const { exitCode, output } = await runCommand(command, options);
  if (exitCode !== 0) throw new Error(`${command.join(" ")} ended with exit code ${exitCode}:\n${output}`.trimEnd());
}
