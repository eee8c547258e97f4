import { createHash } from "node:crypto";
import { appendFileSync, existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createConnection } from "mysql2/promise";
import { StackError } from "../errors.ts";
import { ownerVariable } from "../orphans.ts";
import { runCommand } from "../run-command.ts";
import { databaseAdminUrl, type StackSettings } from "../settings.ts";
import { explainLog, type ProcessSpec } from "../supervisor.ts";
import type { Programs } from "./downloads.ts";

const connectionsMax = 200;

/** Makes the data directory when there is none; then tells how to run the server on it. */
export async function prepareMariadb(settings: StackSettings, programs: Programs): Promise<ProcessSpec> {
  const folder = join(settings.dataFolder, "mariadb");
  if (!existsSync(folder)) await initialize(settings, programs, folder);
  const url = databaseAdminUrl(settings);
  return {
    name: "mariadb",
    stage: "mariadb",
    command: [
      join(programs.mariadbFolder, "bin/mariadbd"),
      ...commonArguments(programs, folder),
      ...serverArguments(settings, folder),
      "--skip-name-resolve",
      // It would compute a certificate at every start, for up to ten seconds; nothing leaves this machine.
      "--skip-ssl",
    ],
    env: {},
    isReady: () => answers(url),
  };
}

/** How either dialect's server is run on a data folder: on this machine only, and small. */
export function serverArguments(settings: StackSettings, folder: string): readonly string[] {
  return [
    `--bind-address=${settings.host}`,
    `--port=${settings.ports.mariadb}`,
    `--socket=${socketPath(folder)}`,
    `--pid-file=${join(folder, "server.pid")}`,
    `--max-connections=${connectionsMax}`,
    "--innodb-buffer-pool-size=128M",
    // A commit that was acknowledged is on the disk, also after a kill -9 or a power loss.
    "--innodb-flush-log-at-trx-commit=1",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",
    "--default-time-zone=+00:00",
    "--max-allowed-packet=64M",
    "--skip-log-bin",
  ];
}

/** In a draft folder that is renamed when complete: a kill half-way leaves nothing to clean by hand. */
async function initialize(settings: StackSettings, programs: Programs, folder: string): Promise<void> {
  const draft = `${folder}.draft`;
  await rm(draft, { recursive: true, force: true });
  const logFile = join(settings.dataFolder, "logs/mariadb.log");
  await mkdir(join(settings.dataFolder, "logs"), { recursive: true });
  const { exitCode, output } = await runCommand(
    [
      "sh",
      join(programs.mariadbFolder, "scripts/mariadb-install-db"),
      ...commonArguments(programs, draft),
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
      "--skip-name-resolve",
    ],
    { env: { [ownerVariable]: settings.dataFolder } },
  );
  appendFileSync(logFile, output);
  if (exitCode !== 0) {
    throw new StackError(`MariaDB's data directory could not be made (exit code ${exitCode}).${explainLog(logFile)}`);
  }
  await rename(draft, folder);
}

function commonArguments(programs: Programs, folder: string): readonly string[] {
  return [
    "--no-defaults",
    `--basedir=${programs.mariadbFolder}`,
    `--lc-messages-dir=${join(programs.mariadbFolder, "share")}`,
    `--datadir=${folder}`,
    // mariadbd refuses to run as root unless it is told to.
    ...(process.getuid?.() === 0 ? ["--user=root"] : []),
  ];
}

/** Unix sockets allow 107 characters, and a clone may lie deep: so it is not in the data folder. */
function socketPath(folder: string): string {
  const digest = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return join(tmpdir(), `order-saga-${digest}.sock`);
}

/** Whether the server at `url` answers; throws while nobody listens. */
export async function answers(url: string): Promise<boolean> {
  const connection = await createConnection({ uri: url, connectTimeout: 1_000 });
  try {
    await connection.query("SELECT 1");
    return true;
  } finally {
    connection.destroy();
  }
}
