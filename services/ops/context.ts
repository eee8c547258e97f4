/** What all verbs share: their context, their outcome, and how they read several sources. */
import type { OperatorCommand } from "../../relay/operations/audit-log.ts";
import type { OperatedSource } from "../../relay/operations/source.ts";
import { DomainError, messageOf } from "../kit/errors.ts";
import { printable } from "../kit/table.ts";
import { type OpsArguments, UsageError, type VerbUsage } from "./arguments.ts";
import type { OpsSettings } from "./settings.ts";

/** What a verb works with. */
export interface OpsContext extends OpsSettings {
  /** Asks the operator whether to go on. @throws Error if the answer is no, or if there is no terminal to ask. */
  confirm(question: string): Promise<void>;
  /** Prints one line about progress. */
  showProgress(message: string): void;
  /** Aborted by Ctrl-C. Only verbs with `stopsWhenAsked` watch it. */
  readonly signal: AbortSignal;
}

/** The result of a verb. */
export interface Outcome {
  /** For programs: printed with `--json`. */
  readonly document: Readonly<Record<string, unknown>>;
  /** For people. */
  readonly text: string;
  /** False if something is missing from the result: the exit code is then 1. */
  readonly complete?: boolean;
}

/** A verb. To add one, add it to the list in verbs/all.ts. */
export interface Verb extends VerbUsage {
  /** Whether the verb watches `context.signal`. The others are short: each of their changes is one transaction. */
  readonly stopsWhenAsked?: boolean;
  run(context: OpsContext, args: OpsArguments<VerbUsage>): Promise<Outcome>;
}

/** Limits a verb to one source. */
export const sourceFlag = { source: "S" } as const;
/** How much of an error message is shown on one line. */
export const errorLengthMax = 80;

/** A source that could not be read. */
export interface SourceFailure {
  readonly source: string;
  readonly error: string;
}

/** All sources, or the one that `--source` names. @throws DomainError NOT_FOUND */
export function sourcesOf(context: OpsContext, args: OpsArguments<VerbUsage>): readonly OperatedSource[] {
  const name = args.text("source");
  if (name === undefined) return context.sources;
  const source = context.sources.find((it) => it.name === name);
  if (source !== undefined) return [source];
  const names = context.sources.map((it) => it.name).join(", ");
  throw new DomainError("NOT_FOUND", `There is no source ${name}. Sources: ${names}.`);
}

/** @throws UsageError if the operand is missing. */
export function operandOf({ operand, verb }: OpsArguments<VerbUsage>): string {
  if (operand === undefined) throw new UsageError(`${verb.name} needs ${verb.operand?.name}.`);
  return operand;
}

/** @throws UsageError unless exactly one of the operand and `--all` was given. */
export function requireOperandOrAll({ verb, operand, has }: OpsArguments<VerbUsage>): void {
  if ((operand === undefined) === has("all")) return;
  const both = operand === undefined ? "" : ", not both";
  throw new UsageError(`${verb.name} takes ${verb.operand?.name} or --all${both}.`);
}

/** The command as the audit log records it: the operand and the verb's own flags. */
export function commandOf(
  { operator }: OpsContext,
  { verb, operand, text, has }: OpsArguments<VerbUsage>,
): OperatorCommand {
  const flags = Object.entries(verb.flags).flatMap(([name, placeholder]) =>
    has(name) ? [[name, placeholder === true ? true : text(name)]] : [],
  );
  const given = operand === undefined ? [] : [[verb.operand?.name.toLowerCase() ?? "operand", operand]];
  return { operator, command: verb.name, arguments: Object.fromEntries([...given, ...flags]) };
}

/** Reads all sources concurrently. A source that fails is reported beside the results of the others. */
export async function readEach<T>(
  sources: readonly OperatedSource[],
  read: (source: OperatedSource) => Promise<T>,
): Promise<{
  readonly results: readonly { readonly source: string; readonly value: T }[];
  readonly failures: readonly SourceFailure[];
}> {
  const settled = await Promise.allSettled(sources.map(read));
  const results: { source: string; value: T }[] = [];
  const failures: SourceFailure[] = [];
  settled.forEach((result, index) => {
    const source = sources[index]?.name ?? "";
    if (result.status === "fulfilled") results.push({ source, value: result.value });
    else failures.push({ source, error: messageOf(result.reason) });
  });
  return { results, failures };
}

/** For verbs that must not do half of their work. @throws Error naming each source that could not be read. */
export function requireNoFailures(failures: readonly SourceFailure[]): void {
  if (failures.length > 0) throw new Error(failures.map(describeFailure).join("\n"));
}

/** Appends a line for each source that could not be read. */
export function withFailures(text: string, failures: readonly SourceFailure[]): string {
  return [text, ...failures.map(describeFailure)].join("\n");
}

const describeFailure = ({ source, error }: SourceFailure) => `${source} could not be read: ${printable(error)}`;
