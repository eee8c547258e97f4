/** Parses the arguments of `npm run ops`: a verb of one or two words, at most one operand, and flags. */
import { parseArgs } from "node:util";

/** The arguments are wrong. The message and the usage are shown, and the exit code is 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The arguments that a verb takes. */
export interface VerbUsage {
  /** One or two words, for example `dead show`. */
  readonly name: string;
  /** The name until it was renamed: an operator who still types it learns the new one. */
  readonly formerName?: string;
  /** The argument beside the flags, for example `ID`. */
  readonly operand?: { readonly name: string; readonly required: boolean };
  /** Flags by name without the dashes: the placeholder of its value, or true for a flag without a value. */
  readonly flags: Readonly<Record<string, string | true>>;
  /** Flags that must be given. */
  readonly required?: readonly string[];
  /** The operand and flags as the usage shows them, after the name. */
  readonly synopsis: string;
  /** What the verb does, for the usage. */
  readonly summary: string;
}

/** The flags of every verb. */
const commonFlags = { json: true, yes: true, help: true, operator: "NAME" } as const;

/** Parsed arguments. */
export interface OpsArguments<Verb extends VerbUsage> {
  readonly verb: Verb;
  readonly operand: string | undefined;
  /** The value of a flag; undefined if it was not given. */
  text(flag: string): string | undefined;
  /** Whether a flag was given. */
  has(flag: string): boolean;
}

/** @throws UsageError naming the first argument that is wrong or missing. */
export function parseOpsArguments<Verb extends VerbUsage>(
  args: readonly string[],
  verbs: readonly Verb[],
): OpsArguments<Verb> {
  const verb = findVerb(args, verbs);
  const known: Readonly<Record<string, string | true>> = { ...commonFlags, ...verb.flags };
  const options = Object.fromEntries(
    Object.entries(known).map(([name, placeholder]) => [
      name,
      { type: placeholder === true ? ("boolean" as const) : ("string" as const) },
    ]),
  );
  // Not strict: strict parsing refuses values that begin with a dash, such as `--from -2h`.
  const { tokens } = parseArgs({
    args: args.slice(verb.name.split(" ").length),
    options,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const flags = new Map<string, string>();
  const operands: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") operands.push(token.value);
    if (token.kind !== "option") continue;
    const { name, rawName } = token;
    const placeholder = Object.hasOwn(known, name) && rawName.startsWith("--") ? known[name] : undefined;
    if (placeholder === undefined) throw new UsageError(`${verb.name} has no flag ${rawName}.`);
    if (flags.has(name)) throw new UsageError(`--${name} was given twice.`);
    flags.set(name, placeholder === true ? requireNoValue(token) : requireValue(token, placeholder));
  }
  requireOperands(verb, operands);
  for (const name of verb.required ?? []) {
    if (!flags.has(name)) throw new UsageError(`${verb.name} needs --${name} ${known[name]}.`);
  }
  return {
    verb,
    operand: operands[0],
    text: (flag) => flags.get(flag),
    has: (flag) => flags.has(flag),
  };
}

/** The longest verb that the arguments begin with. */
function findVerb<Verb extends VerbUsage>(args: readonly string[], verbs: readonly Verb[]): Verb {
  const [first, second] = args;
  if (first === undefined) throw new UsageError("No verb was given.");
  const twoWords = `${first} ${second}`;
  for (const name of [twoWords, first]) {
    const verb = verbs.find((it) => it.name === name);
    if (verb !== undefined) return verb;
    const renamed = verbs.find((it) => it.formerName === name);
    if (renamed !== undefined) throw new UsageError(`${name} is now called ${renamed.name}.`);
  }
  const longer = verbs.filter(({ name }) => name.startsWith(`${first} `)).map(({ name }) => name);
  if (longer.length > 0) {
    const given = second === undefined ? first : twoWords;
    throw new UsageError(`There is no verb ${given}. Verbs that begin with ${first}: ${longer.join(", ")}.`);
  }
  throw new UsageError(`There is no verb ${first}.`);
}

/** A flag as `parseArgs` found it. */
interface FlagToken {
  readonly name: string;
  readonly value: string | undefined;
  /** Whether the value stands in the same argument: `--flag=value`. */
  readonly inlineValue: boolean | undefined;
}

function requireNoValue({ name, value }: FlagToken): string {
  if (value !== undefined) throw new UsageError(`--${name} takes no value.`);
  return "";
}

/** A value may begin with one dash, as `-2h` does. Two dashes begin the next flag: the value was forgotten. */
function requireValue({ name, value = "", inlineValue }: FlagToken, placeholder: string): string {
  const isNextFlag = inlineValue !== true && value.startsWith("--");
  if (isNextFlag || value.trim() === "") throw new UsageError(`--${name} needs a value: ${placeholder}.`);
  return value;
}

function requireOperands({ name, operand }: VerbUsage, operands: readonly string[]): void {
  const [, second] = operands;
  if (operand === undefined && operands.length > 0) {
    throw new UsageError(`${name} takes no operand, but got ${operands[0]}.`);
  }
  if (operand !== undefined && second !== undefined) {
    throw new UsageError(`${name} takes one ${operand.name}, but also got ${second}.`);
  }
  if (operand?.required === true && operands.length === 0) throw new UsageError(`${name} needs ${operand.name}.`);
}

const age = /^(\d{1,9})([smhd])$/;
const unitMs: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const isoTime = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?)?$/;

/**
 * Parses a time: ISO 8601 (UTC if it names no zone), `now`, or an age such as `-2h` (s, m, h, d). Returns a function from
 * now to the time, because the database's clock says what now is.
 * @throws UsageError
 */
export function parseTime(flag: string, text: string): (now: Date) => Date {
  if (text === "now") return (now) => now;
  const agoMs = text.startsWith("-") ? ageMsOf(text.slice(1)) : undefined;
  if (agoMs !== undefined) return (now) => new Date(now.getTime() - agoMs);
  const match = isoTime.exec(text);
  // JavaScript reads a date without a zone as UTC, but a date with a time as local time.
  const time = new Date(match?.[1] !== undefined && match[4] === undefined ? `${text}Z` : text);
  if (match === null || Number.isNaN(time.getTime())) {
    throw new UsageError(`--${flag} takes a time like 2026-01-31T09:30:00Z, -2h or now, not "${text}".`);
  }
  return () => time;
}

/** Parses an age such as `7d` (s, m, h, d). @throws UsageError */
export function parseAge(flag: string, text: string): number {
  const ms = ageMsOf(text);
  if (ms === undefined) throw new UsageError(`--${flag} takes an age like 90s, 30m, 2h or 7d, not "${text}".`);
  return ms;
}

function ageMsOf(text: string): number | undefined {
  const [, amount, unit = ""] = age.exec(text) ?? [];
  return amount === undefined ? undefined : Number(amount) * (unitMs[unit] ?? 0);
}

/** Parses a whole number from 0 to `max`. @throws UsageError */
export function parseWholeNumber(flag: string, text: string, max: number): number {
  const number = Number(text);
  if (/^\d+$/.test(text) && number <= max) return number;
  throw new UsageError(`--${flag} takes a whole number up to ${max}, not "${text}".`);
}

/** The usage of all verbs. */
export function usageOf(verbs: readonly VerbUsage[]): string {
  const lines = verbs.map(({ name, synopsis, summary }) => [`${name} ${synopsis}`.trim(), summary] as const);
  const width = Math.max(...lines.map(([call]) => call.length)) + 2;
  return `Usage: npm run ops -- VERB … [--json] [--yes] [--operator NAME]
${lines.map(([call, summary]) => `  ${call.padEnd(width)}${summary}`).join("\n")}

  --json      print one JSON document on standard output
  --yes       make the change without asking
  --operator  the name recorded with a change (default: your operating system user)
  T           a time: 2026-01-31T09:30:00Z, -2h (s, m, h, d) or now
  AGE         90s, 30m, 2h or 7d

The sources are those of the local stack (STACK_DATA_DIR), or those in OPS_SOURCES (JSON as in RELAY_SOURCES) with
KAFKA_BROKERS.`;
}
