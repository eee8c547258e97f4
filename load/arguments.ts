/** How the commands of this folder read their arguments. */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { messageOf } from "../services/kit/errors.ts";
import { StackError } from "../services/stack/errors.ts";

type Options = NonNullable<ParseArgsConfig["options"]>;

/**
 * Parses a command's arguments.
 * @throws StackError that says what is wrong and ends with the usage.
 */
export function parseArguments<O extends Options>(
  args: readonly string[],
  { options, usage, allowPositionals = false }: CommandLine<O>,
) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals });
  } catch (error) {
    throw new StackError(`${messageOf(error)}\n${usage}`);
  }
}

export interface CommandLine<O extends Options> {
  readonly options: O;
  readonly usage: string;
  readonly allowPositionals?: boolean;
}

/** The bounds of a numeric option, inclusive. */
export interface NumberBounds {
  readonly min: number;
  readonly max: number;
  /** Whether fractions are accepted. Default false. */
  readonly fractional?: boolean;
}

/**
 * Parses the value of a numeric option.
 * @param name with its dashes, for the message.
 * @throws StackError that says what is expected and ends with the usage.
 */
export function parseNumber(
  name: string,
  value: string,
  { min, max, fractional = false }: NumberBounds,
  usage: string,
): number {
  const number = Number(value);
  const isNumeric = fractional ? /^(\d+(\.\d+)?|\.\d+)$/.test(value) : /^\d+$/.test(value);
  if (isNumeric && number >= min && number <= max) return number;
  const kind = fractional ? "number" : "whole number";
  throw new StackError(`${name} takes a ${kind} from ${min} to ${max}, but is "${value}".\n${usage}`);
}
