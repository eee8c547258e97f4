/** A MariaDB and a Kafka for tests: empty, on ports and data of their own, so that they run beside an `npm start`. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { environment, integer, readConfig } from "../kit/config.ts";
import { ensurePrograms } from "./downloads.ts";
import { explained, StackError } from "./errors.ts";
import { requireFreePorts } from "./free-ports.ts";
import { prepareKafka } from "./kafka.ts";
import { type DataFolderLock, lockDataFolder } from "./lock.ts";
import { prepareMariadb } from "./mariadb.ts";
import { stopOrphans } from "./orphans.ts";
import { databaseAdminUrl, parseInstances, portVariables, readStackSettings } from "./settings.ts";
import { Supervisor } from "./supervisor.ts";

/** Another checkout's tests run beside these when they are told another one. */
export const testPortOffset = readConfig(environment(), {
  value: integer("TEST_PORT_OFFSET", { fallback: 10_000, min: 1, max: 40_000 }),
}).value;

/** What was set for a running `npm start` is not for the tests: their ports are their own. */
export function testEnvironment(): Readonly<Record<string, string | undefined>> {
  const ports = new Set<string>(Object.values(portVariables).map(({ variable }) => variable));
  return Object.fromEntries(Object.entries(environment()).filter(([name]) => !ports.has(name)));
}

/** Locks a data folder for this run, and begins it with empty servers: what an earlier run left is ended and removed. */
export async function emptied(folder: string): Promise<DataFolderLock> {
  const lock = await lockDataFolder(folder);
  await stopOrphans(folder);
  for (const name of ["mariadb", "kafka", "gateway"]) await rm(join(folder, name), { recursive: true, force: true });
  return lock;
}

/** Starts the servers, lets `work` run with the variables by which kit/testing.ts finds them, and stops them. */
export async function withTestServers<T>(
  root: string,
  work: (variables: Readonly<Record<string, string>>) => Promise<T>,
): Promise<T> {
  const settings = readStackSettings(
    {
      ...testEnvironment(),
      STACK_DATA_DIR: join(root, ".data/test/servers"),
      STACK_PORT_OFFSET: String(testPortOffset),
    },
    root,
  );
  const programs = await ensurePrograms(settings.cacheFolder);
  const lock = await emptied(settings.dataFolder);
  const supervisor = new Supervisor({
    root,
    dataFolder: settings.dataFolder,
    logFolder: join(settings.dataFolder, "logs"),
    onChange: () => undefined,
  });
  const stop = async () => {
    await supervisor.stopAll();
    await lock.release();
  };
  // The servers are in process groups of their own: nobody else would end them.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => void stop().finally(() => process.exit(130)));
  }
  try {
    await requireFreePorts(settings, parseInstances("order=1"));
    await Promise.all([
      prepareMariadb(settings, programs).then((spec) => supervisor.start(spec)),
      prepareKafka(settings, programs).then((spec) => supervisor.start(spec)),
    ]);
    return await work({
      TEST_DATABASE_ADMIN_URL: databaseAdminUrl(settings),
      TEST_KAFKA_BROKERS: `${settings.host}:${settings.ports.kafka}`,
    });
  } finally {
    await stop();
  }
}

/** Runs a program of ours on the servers, which it finds as tests do. Returns its exit code. */
export async function runOnTestServers(root: string, args: readonly string[]): Promise<number> {
  try {
    return await withTestServers(root, async (variables) => {
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
