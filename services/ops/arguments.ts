/** What `npm run ops` was asked to do: a verb of one or two words, at most one operand, and flags. */

/** The command was called wrongly: the message and the usage are shown, and it exits with code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** How a verb is called. */
export interface VerbUsage {
  /** One or two words, for example `dead show`. */
  readonly name: string;
  /** What it takes beside flags, for example `ID`, and whether it must be there. */
  readonly operand?: { readonly name: string; readonly required: boolean };
  /** Flags by name, without the dashes: with a value, whose placeholder this is, or (true) without one. */
  readonly flags: Readonly<Record<string, string | true>>;
  /** Flags that must be there. */
  readonly required?: readonly string[];
  /** In the usage, after the verb. */
  readonly synopsis: string;
  /** In the usage: what it does. */
  readonly summary: string;
}

/** The flags of every verb. */
export const commonFlags = { json: true, yes: true, help: true, operator: "NAME" } as const;

/** The parsed command. */
export interface OpsArguments<Verb extends VerbUsage> {
  readonly verb: Verb;
  readonly operand: string | undefined;
  /** The value of a flag, undefined where it was not given. */
  text(flag: string): string | undefined;
  /** Whether a flag was given. */
  has(flag: string): boolean;
}

/** @throws UsageError that says what is wrong. */
export function parseOpsArguments<Verb extends VerbUsage>(
  args: readonly string[],
  verbs: readonly Verb[],
): OpsArguments<Verb> {
  const verb = findVerb(args, verbs);
  const rest = args.slice(verb.name.split(" ").length);
  const known: Readonly<Record<string, string | true>> = { ...commonFlags, ...verb.flags };
  const flags = new Map<string, string>();
  const operands: string[] = [];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    if (!argument.startsWith("--")) {
      operands.push(argument);
      continue;
    }
    const [name = "", given] = argument.slice(2).split(/=(.*)/s, 2);
    const placeholder = Object.hasOwn(known, name) ? known[name] : undefined;
    if (placeholder === undefined) throw new UsageError(`${verb.name} has no flag --${name}.`);
    if (flags.has(name)) throw new UsageError(`--${name} was given twice.`);
    flags.set(name, placeholder === true ? noValue(name, given) : valueFor(name, placeholder, given, rest));
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
  const words = args.slice(0, 2);
  const verb = verbs.find(({ name }) => name === words.join(" ")) ?? verbs.find(({ name }) => name === words[0]);
  if (verb !== undefined) return verb;
  const longer = verbs.filter(({ name }) => name.startsWith(`${words[0]} `)).map(({ name }) => name);
  if (longer.length > 0) throw new UsageError(`There is no verb ${words.join(" ")}, but ${longer.join(" and ")}.`);
  throw new UsageError(words[0] === undefined ? "Which verb?" : `There is no verb ${words[0]}.`);
}

function noValue(name: string, given: string | undefined): string {
  if (given !== undefined) throw new UsageError(`--${name} takes no value.`);
  return "";
}

/** What follows is the value, also where it begins with a dash as `-2h` does; but not another flag. */
function valueFor(name: string, placeholder: string, given: string | undefined, rest: string[]): string {
  const value = given ?? (rest[0]?.startsWith("--") === true ? undefined : rest.shift());
  if (value === undefined || value.trim() === "") throw new UsageError(`--${name} needs a value: ${placeholder}.`);
  return value;
}

function requireOperands({ name, operand }: VerbUsage, operands: readonly string[]): void {
  const max = operand === undefined ? 0 : 1;
  if (operands.length > max) {
    throw new UsageError(`${name} takes ${operand?.name ?? "no operand"}, and not also ${operands.at(-1)}.`);
  }
  if (operand?.required === true && operands.length === 0) throw new UsageError(`${name} needs ${operand.name}.`);
}

const age = /^(\d{1,9})([smhd])$/;
const unitMs: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const isoTime = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?)?$/;

/**
 * Parses a time: ISO 8601 (UTC where it names no zone), `now`, or an age such as `-2h` (s, m, h, d). Returns what the
 * time is, once it is known what now is: that is the database's to say.
 * @throws UsageError
 */
export function parseTime(flag: string, text: string): (now: Date) => Date {
  if (text === "now") return (now) => now;
  const agoMs = text.startsWith("-") ? ageMsOf(text.slice(1)) : undefined;
  if (agoMs !== undefined) return (now) => new Date(now.getTime() - agoMs);
  const match = isoTime.exec(text);
  // Without a zone JavaScript takes a date for UTC, and a date with a time for local.
  const time = new Date(match?.[1] !== undefined && match[4] === undefined ? `${text}Z` : text);
  if (match === null || Number.isNaN(time.getTime())) {
    throw new UsageError(`--${flag} takes a time like 2026-01-31T09:30:00Z, -2h or now, but is "${text}".`);
  }
  return () => time;
}

/** Parses an age such as `7d` (s, m, h, d). @throws UsageError */
export function parseAge(flag: string, text: string): number {
  const ms = ageMsOf(text);
  if (ms === undefined) throw new UsageError(`--${flag} takes an age like 90s, 30m, 2h or 7d, but is "${text}".`);
  return ms;
}

function ageMsOf(text: string): number | undefined {
  const [, amount, unit = ""] = age.exec(text) ?? [];
  return amount === undefined ? undefined : Number(amount) * (unitMs[unit] ?? 0);
}

/** The usage of all verbs. */
export function usageOf(verbs: readonly VerbUsage[]): string {
  const lines = verbs.map(({ name, synopsis, summary }) => [`${name} ${synopsis}`.trim(), summary] as const);
  const width = Math.max(...lines.map(([call]) => call.length)) + 2;
  return `Usage: npm run ops -- VERB … [--json] [--yes] [--operator NAME]
${lines.map(([call, summary]) => `  ${call.padEnd(width)}${summary}`).join("\n")}

  --json      one JSON document on the standard output
  --yes       do not ask before changing something
  --operator  whose name is recorded with a change (default: the user of the operating system)
  T           a time: 2026-01-31T09:30:00Z, -2h (s, m, h, d) or now
  AGE         90s, 30m, 2h or 7d

The sources are those of the local stack (STACK_DATA_DIR), or of OPS_SOURCES (JSON as in RELAY_SOURCES) and KAFKA_BROKERS.`;
}
