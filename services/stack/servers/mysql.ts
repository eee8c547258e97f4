/**
 * MySQL 9.x for `npm run test:mysql`: the other database that the services support. Its programs come from Debian's
 * packages. debootstrap unpacks them into the user's cache folder, where their own loader runs them: they are not
 * installed and need no chroot.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { say } from "../console.ts";
import { inDraft } from "../draft-folder.ts";
import { StackError } from "../errors.ts";
import { runCommand } from "../run-command.ts";
import { databaseAdminUrl, type StackSettings } from "../settings.ts";
import type { ProcessSpec } from "../supervisor.ts";
import { ensureDataFolder } from "./data-folder.ts";
import { answers, serverArguments } from "./mariadb.ts";

/** The only Debian suite with MySQL. Its version changes, so it is printed instead of pinned. */
const suite = "sid";
const serverPackage = "mysql-server-core";
const cacheName = `mysql-${suite}`;
const linesShown = 8;

/**
 * Returns the folder with MySQL's programs. Fetches them first if the user's cache folder has none.
 * @throws StackError that says what is missing and what to do.
 */
export async function ensureMysql(cacheFolder: string): Promise<string> {
  const folder = join(cacheFolder, cacheName);
  if (!existsSync(folder)) {
    await ensureDebootstrap();
    say("Fetching MySQL from Debian's packages (once: 560 MB on the disk, half a minute) …");
    await inDraft(folder, unpack);
  }
  const { exitCode, output } = await runCommand([...program(folder), "--version"]);
  if (exitCode !== 0) {
    throw new StackError(`MySQL does not run here: ${lastLines(output)}\nRemove ${folder}, then try again.`);
  }
  say(output.trim().replace(/^.*mysqld\s+/, "MySQL: "));
  return folder;
}

async function ensureDebootstrap(): Promise<void> {
  const why = "MySQL is unpacked from Debian's packages by debootstrap";
  if (process.getuid?.() !== 0) {
    throw new StackError(`${why}, which needs root. Run this once as root; after that any user can.`);
  }
  if (Bun.which("debootstrap") !== null) return;
  if (Bun.which("apt-get") === null) {
    throw new StackError(`${why}, which is not installed, and there is no apt-get to install it.`);
  }
  say("Installing debootstrap with apt-get …");
  const { exitCode, output } = await runCommand(
    ["sh", "-c", "apt-get -qq update && apt-get -qq install -y --no-install-recommends debootstrap"],
    { env: { DEBIAN_FRONTEND: "noninteractive" } },
  );
  if (exitCode !== 0 || Bun.which("debootstrap") === null) {
    throw new StackError(`${why}, and apt-get could not install it (exit code ${exitCode}):\n${lastLines(output)}`);
  }
}

async function unpack(draft: string): Promise<void> {
  const { exitCode, output } = await runCommand([
    "debootstrap",
    "--variant=minbase",
    `--include=${serverPackage}`,
    suite,
    draft,
  ]);
  if (exitCode === 0) return;
  throw new StackError(
    `debootstrap could not fetch MySQL (exit code ${exitCode}):\n${lastLines(output)}\nCheck that deb.debian.org can be reached, then try again.`,
  );
}

/** Creates the data directory if there is none. Returns how to run the server on it. */
export async function prepareMysql(settings: StackSettings, programs: string): Promise<ProcessSpec> {
  const folder = await ensureDataFolder(settings, {
    name: "mysql",
    title: "MySQL",
    createIn: (draft) => [...program(programs), ...commonArguments(programs, draft), "--initialize-insecure"],
  });
  return {
    name: "mysql",
    stage: "mariadb",
    command: [
      ...program(programs),
      ...commonArguments(programs, folder),
      ...serverArguments(settings, folder),
      "--mysqlx=OFF",
    ],
    env: {},
    isReady: () => answers(databaseAdminUrl(settings)),
  };
}

/** Runs the server with the loader and the libraries that it was built for. */
function program(folder: string): readonly string[] {
  const libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/mysql/private"].map((it) => join(folder, it)).join(":");
  return [join(folder, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries, join(folder, "usr/sbin/mysqld")];
}

function commonArguments(programs: string, folder: string): readonly string[] {
  return [
    "--no-defaults",
    `--basedir=${join(programs, "usr")}`,
    `--lc-messages-dir=${join(programs, "usr/share/mysql")}`,
    `--character-sets-dir=${join(programs, "usr/share/mysql/charsets")}`,
    `--plugin-dir=${join(programs, "usr/lib/mysql/plugin")}`,
    `--datadir=${folder}`,
    "--secure-file-priv=NULL",
    // mysqld refuses to run as root without this.
    ...(process.getuid?.() === 0 ? ["--user=root"] : []),
  ];
}

function lastLines(output: string): string {
  return output.trim().split("\n").slice(-linesShown).join("\n");
}
