import { parseArgs } from "node:util";
import { messageOf } from "../../services/kit/errors.ts";
import { StackError } from "../../services/stack/errors.ts";

/** What the command was asked to do. */
export interface BenchArguments {
  readonly rows: number;
  readonly publishedRows: number;
  readonly rounds: number;
  readonly json: boolean;
}

export const usage = `npm run bench -- relay [options]     on a MariaDB and a Kafka of its own
  --rows N           rows of each drain (default 100000)
  --published N      published rows that lie beside them in one of the drains (default 1000000)
  --rounds N         how often each drain is measured, in turn with what it is compared with (default 3)
  --json             the figures as one JSON object, the last line of the standard output`;

/** @throws StackError that says what is wrong and how it is used. */
export function parseBenchArguments(args: readonly string[]): BenchArguments {
  const { values, positionals } = parse(args);
  if (positionals.length !== 1 || positionals[0] !== "relay")
    throw new StackError(`What is measured: relay.\n${usage}`);
  return {
    rows: whole("--rows", values.rows, 100_000, 10_000_000),
    publishedRows: whole("--published", values.published, 1_000_000, 100_000_000),
    rounds: whole("--rounds", values.rounds, 3, 100),
    json: values.json ?? false,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        rows: { type: "string" },
        published: { type: "string" },
        rounds: { type: "string" },
        json: { type: "boolean" },
      },
    });
  } catch (error) {
    throw new StackError(`${messageOf(error)}\n${usage}`);
  }
}

function whole(name: string, value: string | undefined, fallback: number, max: number): number {
  if (value === undefined) return fallback;
  const parsed = Number(value);
  if (/^\d+$/.test(value) && parsed >= 1 && parsed <= max) return parsed;
  throw new StackError(`${name} takes a whole number from 1 to ${max}, but is "${value}".\n${usage}`);
}
