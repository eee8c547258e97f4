import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ServiceName } from "../../proto/event-table.ts";

/** The addresses of the order service. */
export interface OrderEndpoints {
  /** Connect, gRPC-Web, JSON. */
  readonly http: string;
  /** gRPC over clear-text HTTP/2. */
  readonly grpc: string;
}

/**
 * The running stack, for tools and tests: the content of `stack.json` in the data folder. It is rewritten after each
 * restart of a process. Further instances of order are beside `order`, as `order-2` and so on.
 */
export interface StackFile {
  readonly order: OrderEndpoints;
  readonly [orderInstance: `order-${number}`]: OrderEndpoints;
  readonly kafka: { readonly brokers: readonly string[] };
  /** URLs with the administrator's credentials. */
  readonly databases: Readonly<Record<ServiceName, string>>;
  readonly gateway: string;
  /** Process ids by name; a second instance is called `order-2`. */
  readonly processes: Readonly<Record<string, number>>;
  /** The private port of each process by name, with /livez, /readyz and /metrics. The gateway has /livez only. */
  readonly health: Readonly<Record<string, string>>;
}

export function stackFilePath(dataFolder: string): string {
  return join(dataFolder, "stack.json");
}

/** @throws Error that says to run `npm start`, if there is no stack file. */
export async function readStackFile(dataFolder: string): Promise<StackFile> {
  const path = stackFilePath(dataFolder);
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new Error(`${path} cannot be read. Run npm start first and leave it running.`, { cause: error });
  }
}

/** Replaces the file atomically: a reader sees the old one or the new one. */
export async function writeStackFile(dataFolder: string, stack: StackFile): Promise<void> {
  const path = stackFilePath(dataFolder);
  await writeFile(`${path}.draft`, `${JSON.stringify(stack, undefined, 2)}\n`);
  await rename(`${path}.draft`, path);
}
