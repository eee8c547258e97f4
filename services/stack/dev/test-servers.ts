/** A MariaDB and a Kafka for tests: empty, on ports and data of their own, so that they run beside an `npm start`. */
import { join } from "node:path";
import { environment, integer, readConfig } from "../../kit/config.ts";
import { explained, StackError } from "../errors.ts";
import { startServers } from "../servers/servers.ts";
import { databaseAdminUrl, portDefaults, readStackSettings } from "../settings.ts";

/** Another checkout's tests run beside these when they are told another one. */
export const testPortOffset = readConfig(environment(), {
  value: integer("TEST_PORT_OFFSET", { fallback: 10_000, min: 1, max: 37_000 }),
}).value;

/** What was set for a running `npm start` is not for the tests: their ports are their own. */
export function testEnvironment(): Readonly<Record<string, string | undefined>> {
  return Object.fromEntries(Object.entries(environment()).filter(([name]) => !portDefaults.has(name)));
}

export interface TestServerOptions {
  /** MySQL in MariaDB's place. */
  readonly mysql?: boolean;
  /** For their data. Default: the one for all who run no others beside. */
  readonly folder?: string;
  /** Added to the default ports. Default: the tests' own. */
  readonly portOffset?: number;
}

/** Starts the servers, lets `work` run with the variables by which kit/testing.ts finds them, and stops them. */
export async function withTestServers<T>(
  root: string,
  options: TestServerOptions,
  work: (variables: Readonly<Record<string, string>>) => Promise<T>,
): Promise<T> {
  const settings = readStackSettings(
    {
      ...testEnvironment(),
      STACK_DATA_DIR: options.folder ?? join(root, ".data/test/servers"),
      STACK_PORT_OFFSET: String(options.portOffset ?? testPortOffset),
    },
    root,
  );
  const servers = await startServers(settings, options);
  try {
    return await work({
      TEST_DATABASE_ADMIN_URL: databaseAdminUrl(settings),
      TEST_KAFKA_BROKERS: `${settings.host}:${settings.ports.kafka}`,
      TEST_DATA_DIR: settings.dataFolder,
    });
  } finally {
    await servers.stop();
  }
}

/** Runs a program of ours on the servers, which it finds as tests do. Returns its exit code. */
export async function runOnTestServers(root: string, args: readonly string[]): Promise<number> {
  try {
    return await withTestServers(root, {}, async (variables) => {
      const child = Bun.spawn([process.execPath, ...args], {
        cwd: root,
        env: { ...testEnvironment(), ...variables },
        stdio: ["ignore", "inherit", "inherit"],
      });
      return await child.exited;
    });
  } catch (error) {
    const shown = explained(error);
    console.error(shown instanceof StackError ? shown.message : shown);
    return 1;
  }
}
