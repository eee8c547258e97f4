/** What the operator's verbs have in common: what they are given, what they return, and how they go about several sources. */
import type { OperatedSource, OperatorCommand } from "../../relay/operations/audit-log.ts";
import { DomainError, messageOf } from "../kit/errors.ts";
import { printable } from "../kit/table.ts";
import { type OpsArguments, UsageError, type VerbUsage } from "./arguments.ts";
import type { OpsSettings } from "./settings.ts";

/** What a verb works with. */
export interface OpsContext extends OpsSettings {
  /** Asks whether to go on. @throws when the answer is no, or there is nobody to ask. */
  confirm(question: string): Promise<void>;
  /** One line about progress. */
  tell(message: string): void;
  /** Aborted by Ctrl-C, for verbs that then end in order. */
  readonly signal: AbortSignal;
}

/** What a verb found or did. */
export interface Outcome {
  /** For programs. */
  readonly document: Readonly<Record<string, unknown>>;
  /** For people. */
  readonly text: string;
  /** False where it could not be done for every source. */
  readonly complete?: boolean;
}

/** A verb. To add one, add it to the list in ops-verbs.ts. */
export interface Verb extends VerbUsage {
  /** Whether it watches `context.signal`. The others end at once: their changes are one transaction each. */
  readonly endsInOrder?: boolean;
  run(context: OpsContext, args: OpsArguments<VerbUsage>): Promise<Outcome>;
}

/** Narrows a verb to one source. */
export const sourceFlag = { source: "S" } as const;
/** As much of an error as fits in a line. */
export const errorLengthMax = 80;

/** A source that could not be asked. */
export interface Fault {
  readonly source: string;
  readonly error: string;
}

/** All sources, or the one of `--source`. @throws DomainError NOT_FOUND */
export function sourcesOf(context: OpsContext, args: OpsArguments<VerbUsage>): readonly OperatedSource[] {
  const name = args.text("source");
  if (name === undefined) return context.sources;
  const source = context.sources.find((it) => it.name === name);
  if (source !== undefined) return [source];
  const names = context.sources.map((it) => it.name).join(", ");
  throw new DomainError("NOT_FOUND", `There is no source ${name}; there are ${names}.`);
}

/** The operand that there must be. @throws UsageError */
export function operandOf({ operand, verb }: OpsArguments<VerbUsage>): string {
  if (operand === undefined) throw new UsageError(`${verb.name} needs ${verb.operand?.name}.`);
  return operand;
}

/** Either the operand or `--all`. @throws UsageError */
export function requireOneOf({ verb, operand, has }: OpsArguments<VerbUsage>, name: string): void {
  if ((operand === undefined) === has("all")) return;
  throw new UsageError(`${verb.name} takes ${name} or --all${operand === undefined ? "" : ", not both"}.`);
}

/** What is written down of a command: the operand and the verb's own flags. */
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

/** Looks at all sources side by side; one that does not answer is told of, and hides none of the others. */
export async function lookAtEach<T>(
  sources: readonly OperatedSource[],
  look: (source: OperatedSource) => Promise<T>,
): Promise<{
  readonly found: readonly { readonly source: string; readonly value: T }[];
  readonly faults: readonly Fault[];
}> {
  const results = await Promise.allSettled(sources.map(look));
  const found: { source: string; value: T }[] = [];
  const faults: Fault[] = [];
  results.forEach((result, index) => {
    const source = sources[index]?.name ?? "";
    if (result.status === "fulfilled") found.push({ source, value: result.value });
    else faults.push({ source, error: messageOf(result.reason) });
  });
  return { found, faults };
}

/** For what must not be done by halves. @throws Error that names the sources which could not be asked. */
export function requireNoFaults(faults: readonly Fault[]): void {
  if (faults.length > 0) throw new Error(faults.map(describeFault).join("\n"));
}

/** A text, and below it the sources that could not be asked. */
export function withFaults(text: string, faults: readonly Fault[]): string {
  return [text, ...faults.map(describeFault)].join("\n");
}

const describeFault = ({ source, error }: Fault) => `${source} could not be asked: ${printable(error)}`;
