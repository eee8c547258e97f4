import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createConnection } from "mysql2/promise";
import { databaseAdminUrl, type StackSettings } from "../settings.ts";
import type { ProcessSpec } from "../supervisor.ts";
import { ensureDataFolder } from "./data-folder.ts";
import type { Programs } from "./downloads.ts";

const connectionsMax = 200;
const answerTimeoutMs = 1_000;

/** Creates the data directory if there is none. Returns how to run the server on it. */
export async function prepareMariadb(settings: StackSettings, programs: Programs): Promise<ProcessSpec> {
  const folder = await ensureDataFolder(settings, {
    name: "mariadb",
    title: "MariaDB",
    createIn: (draft) => [
      "sh",
      join(programs.mariadbFolder, "scripts/mariadb-install-db"),
      ...commonArguments(programs, draft),
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
      "--skip-name-resolve",
    ],
  });
  const url = databaseAdminUrl(settings);
  return {
    name: "mariadb",
    stage: "mariadb",
    command: [
      join(programs.mariadbFolder, "bin/mariadbd"),
      ...commonArguments(programs, folder),
      ...serverArguments(settings, folder),
      "--skip-name-resolve",
      // It would generate a certificate at every start, for up to ten seconds. Nothing leaves this machine.
      "--skip-ssl",
    ],
    env: {},
    isReady: () => answers(url),
  };
}

/** Arguments for MariaDB and MySQL alike: a small server that listens on this machine only. */
export function serverArguments(settings: StackSettings, folder: string): readonly string[] {
  return [
    `--bind-address=${settings.host}`,
    `--port=${settings.ports.mariadb}`,
    `--socket=${socketPath(folder)}`,
    `--pid-file=${join(folder, "server.pid")}`,
    `--max-connections=${connectionsMax}`,
    "--innodb-buffer-pool-size=128M",
    // An acknowledged commit is on the disk: it survives a kill -9 and a power loss.
    "--innodb-flush-log-at-trx-commit=1",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",
    "--default-time-zone=+00:00",
    "--max-allowed-packet=64M",
    "--skip-log-bin",
  ];
}

function commonArguments(programs: Programs, folder: string): readonly string[] {
  return [
    "--no-defaults",
    `--basedir=${programs.mariadbFolder}`,
    `--lc-messages-dir=${join(programs.mariadbFolder, "share")}`,
    `--datadir=${folder}`,
    // A starting server deletes leftover temporary tables in its folder for them. In the shared default, /tmp, it could
    // delete those of another server, whose set-up then fails.
    `--tmpdir=${folder}`,
    // mariadbd refuses to run as root without this.
    ...(process.getuid?.() === 0 ? ["--user=root"] : []),
  ];
}

/** Not in the data folder: the path of a Unix socket is limited to 107 characters, and a clone may lie deep. */
function socketPath(folder: string): string {
  const digest = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return join(tmpdir(), `order-saga-${digest}.sock`);
}

/** Returns true if the server at `url` answers. Throws while it does not. */
export async function answers(url: string): Promise<boolean> {
  const connection = await createConnection({ uri: url, connectTimeout: answerTimeoutMs });
  try {
    await connection.query({ sql: "SELECT 1", timeout: answerTimeoutMs });
    return true;
  } finally {
    connection.destroy();
  }
}
