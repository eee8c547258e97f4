/** MariaDB or MySQL, and Kafka, for tests and benchmarks: empty at the start, with ports and data of their own. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { requireFreePorts } from "../free-ports.ts";
import { type DataFolderLock, lockDataFolder } from "../lock.ts";
import { stopOrphans } from "../orphans.ts";
import { oneInstanceEach, type StackSettings } from "../settings.ts";
import { Supervisor } from "../supervisor.ts";
import { ensurePrograms } from "./downloads.ts";
import { brokerFolders, prepareBrokers } from "./kafka.ts";
import { prepareMariadb } from "./mariadb.ts";
import { ensureMysql, prepareMysql } from "./mysql.ts";

/** Locks a data folder and empties it: ends the processes and removes the data of an earlier run. */
export async function lockAndEmpty(folder: string): Promise<DataFolderLock> {
  const lock = await lockDataFolder(folder);
  await stopOrphans(folder);
  for (const name of ["mariadb", "mysql", ...brokerFolders, "gateway"]) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
  return lock;
}

/**
 * Resolves when both servers answer. A signal to this process stops them and exits with code 130.
 * @param options.mysql MySQL instead of MariaDB.
 */
export async function startServers(
  settings: StackSettings,
  options: { readonly mysql?: boolean } = {},
): Promise<{ stop(): Promise<void> }> {
  const programs = await ensurePrograms(settings.cacheFolder);
  const mysql = options.mysql ? await ensureMysql(settings.cacheFolder) : undefined;
  const prepareDatabase = () =>
    mysql === undefined ? prepareMariadb(settings, programs) : prepareMysql(settings, mysql);
  const lock = await lockAndEmpty(settings.dataFolder);
  const supervisor = new Supervisor({
    root: settings.root,
    dataFolder: settings.dataFolder,
    logFolder: join(settings.dataFolder, "logs"),
    onChange: () => undefined,
  });
  const stop = async () => {
    await supervisor.stopAll();
    await lock.release();
  };
  // The servers have their own process groups, so the terminal does not signal them.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => void stop().finally(() => process.exit(130)));
  }
  try {
    await requireFreePorts(settings, oneInstanceEach);
    await Promise.all([
      prepareDatabase().then((spec) => supervisor.start(spec)),
      prepareBrokers(settings, programs).then((specs) => Promise.all(specs.map((spec) => supervisor.start(spec)))),
    ]);
  } catch (error) {
    await stop();
    throw error;
  }
  return { stop };
}
