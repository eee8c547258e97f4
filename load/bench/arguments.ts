import { StackError } from "../../services/stack/errors.ts";
import { parseArguments, parseNumber } from "../arguments.ts";

/** What `npm run bench` was asked to do. */
export interface BenchArguments {
  readonly rows: number;
  readonly publishedRows: number;
  readonly rounds: number;
  readonly json: boolean;
}

export const usage = `npm run bench -- relay [options]     measures the relay, on a MariaDB and a Kafka of its own
  --rows N           rows of each drain (default 100000)
  --published N      published rows beside them in one of the drains (default 1000000)
  --rounds N         how often each drain is measured, in turn with its baselines (default 3)
  --json             print the figures as one JSON object too, as the last line`;

/** @throws StackError that says what is wrong and ends with the usage. */
export function parseBenchArguments(args: readonly string[]): BenchArguments {
  const text = { type: "string" } as const;
  const { values, positionals } = parseArguments(args, {
    options: { rows: text, published: text, rounds: text, json: { type: "boolean", default: false } },
    usage,
    allowPositionals: true,
  });
  if (positionals.length !== 1 || positionals[0] !== "relay") {
    throw new StackError(`The only benchmark is "relay".\n${usage}`);
  }
  const { rows = "100000", published = "1000000", rounds = "3", json } = values;
  return {
    rows: parseNumber("--rows", rows, { min: 1, max: 10_000_000 }, usage),
    publishedRows: parseNumber("--published", published, { min: 1, max: 100_000_000 }, usage),
    rounds: parseNumber("--rounds", rounds, { min: 1, max: 100 }, usage),
    json,
  };
}
