/** MariaDB and Kafka for tests: empty, with their own ports and data, so that they can run beside an `npm start`. */
import { join } from "node:path";
import { environment, integer, readConfig } from "../../kit/config.ts";
import { printError } from "../errors.ts";
import { startServers } from "../servers/servers.ts";
import { databaseAdminUrl, portDefaults, readStackSettings } from "../settings.ts";

/** Another checkout can run its tests at the same time if it sets another offset. */
export const testPortOffset = readConfig(environment(), {
  value: integer("TEST_PORT_OFFSET", { fallback: 10_000, min: 1, max: 37_000 }),
}).value;

/** Our environment without the port variables: what is set for `npm start` must not move the ports of the tests. */
export function testEnvironment(): Readonly<Record<string, string | undefined>> {
  return Object.fromEntries(Object.entries(environment()).filter(([name]) => !portDefaults.has(name)));
}

export interface TestServerOptions {
  /** MySQL instead of MariaDB. */
  readonly mysql?: boolean;
  /** The data folder. Default: one for all runs that need only one set of servers. */
  readonly folder?: string;
  /** Added to the default ports. Default: {@link testPortOffset}. */
  readonly portOffset?: number;
}

/** Starts the servers, runs `work` and stops them. `work` gets the variables that kit/testing.ts finds them by. */
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

/** Starts the servers, runs a program of ours that finds them as tests do, and returns its exit code. */
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
    printError(error);
    return 1;
  }
}
