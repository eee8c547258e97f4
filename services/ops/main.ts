/** `npm run ops`: the operator's commands, for the local stack or for sources anywhere. */
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
/** The terminal and npm each pass a Ctrl-C on; only one that comes later is a second one. */
const sameSignalMs = 1_500;

/** Asked whether to change something, the operator said no. */
class DeclinedError extends Error {
  override readonly name = "DeclinedError";
}

/** There is a change to confirm, and nobody to ask. */
class UnattendedError extends Error {
  override readonly name = "UnattendedError";
}

/** Questions and progress go beside the result, so that the result can be piped. */
function tell(message: string): void {
  process.stderr.write(`${printable(message)}\n`);
}

async function confirm(question: string): Promise<void> {
  if (process.stdin.isTTY !== true) {
    throw new UnattendedError(`There is no terminal to ask at: ${question} With --yes it is done without asking.`);
  }
  const answer = await readAnswer(`${printable(question)} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw new DeclinedError("Nothing was changed.");
}

/** Ctrl-C and Ctrl-D are a no. */
function readAnswer(question: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  terminal.question(question, resolve);
  terminal.once("SIGINT", () => terminal.close());
  terminal.once("close", () => resolve(""));
  return promise.finally(() => terminal.close());
}

async function main(args: readonly string[]): Promise<Outcome> {
  const command = parseOpsArguments(args, verbs);
  const stopping = new AbortController();
  const settings = await readOpsSettings(environment(), root, command.text("operator"));
  let askedAtMs: number | undefined;
  const stop = () => {
    if (askedAtMs !== undefined && performance.now() - askedAtMs > sameSignalMs) process.exit(130);
    if (askedAtMs !== undefined) return;
    askedAtMs = performance.now();
    tell("Stopping in order; once more to stop at once.");
    stopping.abort();
  };
  if (command.verb.endsInOrder === true) {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  }
  try {
    return await command.verb.run(
      {
        ...settings,
        confirm: command.has("yes") ? async () => undefined : confirm,
        tell,
        signal: stopping.signal,
      },
      command,
    );
  } finally {
    await settings.close();
  }
}

/** 0: done. 1: could not be done, or only in part. 2: called or configured wrongly. */
async function run(args: readonly string[]): Promise<number> {
  const asJson = args.includes("--json");
  if (args.includes("--help") || args[0] === "help") {
    await print(usageOf(verbs));
    return 0;
  }
  try {
    const { document, text, complete } = await main(args);
    await print(asJson ? JSON.stringify(document, undefined, 2) : text);
    return complete === false ? 1 : 0;
  } catch (error) {
    const isUsage = error instanceof UsageError;
    const message = messageOf(error);
    if (asJson) {
      const code = error instanceof DomainError ? error.code : isUsage ? "USAGE" : "FAILED";
      await print(JSON.stringify({ error: { code, message } }, undefined, 2));
    }
    tell(isMistakeOfOurs(error) ? (error.stack ?? message) : message);
    if (isUsage)
      process.stderr.write(`
${usageOf(verbs)}
`);
    return isMiscalled(error) ? 2 : 1;
  }
}

function isMiscalled(error: unknown): boolean {
  if (error instanceof DomainError) return error.code === "INVALID_ARGUMENT";
  return [UsageError, UnattendedError, ConfigError].some((kind) => error instanceof kind);
}

/** What servers answer is for the operator to read; what a program does wrong is for its programmer. */
function isMistakeOfOurs(error: unknown): error is Error {
  return [TypeError, ReferenceError, RangeError].some((kind) => error instanceof kind);
}

/** Written to the end before the process exits, also into a pipe. */
async function print(text: string): Promise<void> {
  await Bun.write(Bun.stdout, `${text}\n`);
}

process.exit(await run(process.argv.slice(2)));
