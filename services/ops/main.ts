/** `npm run ops`: the operators' commands, for the local stack or for any other sources. */
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ConfigError, environment } from "../kit/config.ts";
import { DomainError, messageOf } from "../kit/errors.ts";
import { printable } from "../kit/table.ts";
import { parseOpsArguments, UsageError, usageOf } from "./arguments.ts";
import type { Outcome } from "./context.ts";
import { readOpsSettings } from "./settings.ts";
import { verbs } from "./verbs/all.ts";

const root = join(import.meta.dir, "../..");
/** The terminal and npm both forward one Ctrl-C, so a second signal within this time is the same one. */
const sameSignalMs = 1_500;

/** The operator answered no. */
class DeclinedError extends Error {
  override readonly name = "DeclinedError";
}

/** A change needs confirming, but standard input is not a terminal. */
class UnattendedError extends Error {
  override readonly name = "UnattendedError";
}

/** Questions, progress and errors go to standard error, so that the result alone can be piped. */
function printToStderr(message: string): void {
  process.stderr.write(`${printable(message)}\n`);
}

async function confirm(question: string): Promise<void> {
  if (process.stdin.isTTY !== true) {
    throw new UnattendedError(`There is no terminal to ask: ${question} Add --yes to go ahead without being asked.`);
  }
  const answer = await readAnswer(`${printable(question)} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw new DeclinedError("Nothing was changed.");
}

/** Ctrl-C and Ctrl-D answer no. */
function readAnswer(question: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  terminal.question(question, resolve);
  terminal.once("SIGINT", () => terminal.close());
  terminal.once("close", () => resolve(""));
  return promise.finally(() => terminal.close());
}

/** The first signal asks the verb to stop at a safe point, a later one ends the process at once. */
function stopOnSignals(): AbortSignal {
  const stopping = new AbortController();
  let firstSignalMs: number | undefined;
  const stop = () => {
    if (firstSignalMs !== undefined && performance.now() - firstSignalMs > sameSignalMs) process.exit(130);
    if (firstSignalMs !== undefined) return;
    firstSignalMs = performance.now();
    printToStderr("Stopping at the next safe point. Press Ctrl-C again to stop at once.");
    stopping.abort();
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  return stopping.signal;
}

async function runVerb(args: readonly string[]): Promise<Outcome> {
  const command = parseOpsArguments(args, verbs);
  const settings = await readOpsSettings(environment(), root, command.text("operator"));
  const signal = command.verb.stopsWhenAsked === true ? stopOnSignals() : new AbortController().signal;
  try {
    return await command.verb.run(
      {
        ...settings,
        confirm: command.has("yes") ? async () => undefined : confirm,
        showProgress: printToStderr,
        signal,
      },
      command,
    );
  } finally {
    await settings.close();
  }
}

/** Returns the exit code. 0: done. 1: not done, or only in part. 2: wrong arguments or configuration. */
async function main(args: readonly string[]): Promise<number> {
  const asJson = args.includes("--json");
  if (args.includes("--help") || args[0] === "help") {
    await print(usageOf(verbs));
    return 0;
  }
  try {
    const { document, text, complete } = await runVerb(args);
    await print(asJson ? JSON.stringify(document, undefined, 2) : text);
    return complete === false ? 1 : 0;
  } catch (error) {
    const isUsage = error instanceof UsageError;
    const message = messageOf(error);
    if (asJson) {
      const code = error instanceof DomainError ? error.code : isUsage ? "USAGE" : "FAILED";
      await print(JSON.stringify({ error: { code, message } }, undefined, 2));
    }
    printToStderr(isProgrammingError(error) ? (error.stack ?? message) : message);
    if (isUsage) process.stderr.write(`\n${usageOf(verbs)}\n`);
    return isMiscalled(error) ? 2 : 1;
  }
}

function isMiscalled(error: unknown): boolean {
  if (error instanceof DomainError) return error.code === "INVALID_ARGUMENT";
  return [UsageError, UnattendedError, ConfigError].some((kind) => error instanceof kind);
}

/** An operator reads a server's message; only a mistake in this program needs a stack trace. */
function isProgrammingError(error: unknown): error is Error {
  return [TypeError, ReferenceError, RangeError].some((kind) => error instanceof kind);
}

/** Resolves once all of it is written: the process exits right after, and a pipe may be slow. */
async function print(text: string): Promise<void> {
  await Bun.write(Bun.stdout, `${text}\n`);
}

process.exit(await main(process.argv.slice(2)));
