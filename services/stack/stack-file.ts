import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ServiceName } from "../../proto/event-table.ts";

/** Where Order can be called. */
export interface OrderEndpoints {
  /** Connect, gRPC-Web, JSON. */
  readonly http: string;
  /** gRPC over clear-text HTTP/2. */
  readonly grpc: string;
}

/**
 * What runs, for tools and tests: the content of `stack.json` in the data folder. Rewritten after each restart.
 * A second instance's endpoints are beside `order`, as `order-2` and so on.
 */
export interface StackFile {
  readonly order: OrderEndpoints;
  readonly [orderInstance: `order-${number}`]: OrderEndpoints;
  readonly kafka: { readonly brokers: readonly string[] };
  /** Admin URLs, good for the local stack only. */
  readonly databases: Readonly<Record<ServiceName, string>>;
  readonly gateway: string;
  /** Process ids by name; a second instance is `order-2`. */
  readonly processes: Readonly<Record<string, number>>;
  /** Each process's private port by name, with /livez, /readyz and /metrics. The gateway has /livez only. */
  readonly health: Readonly<Record<string, string>>;
}

export function stackFilePath(dataFolder: string): string {
  return join(dataFolder, "stack.json");
}

/** Reads what runs. @throws Error that says to run `npm start` when there is no such file. */
export async function readStackFile(dataFolder: string): Promise<StackFile> {
  const path = stackFilePath(dataFolder);
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new Error(`${path} cannot be read: run npm start first, and leave it running.`, { cause: error });
  }
}

/** Replaces the file in one step: a reader sees the old one or the new one. */
export async function writeStackFile(dataFolder: string, stack: StackFile): Promise<void> {
  const path = stackFilePath(dataFolder);
  await writeFile(`${path}.draft`, `${JSON.stringify(stack, undefined, 2)}\n`);
  await rename(`${path}.draft`, path);
}
