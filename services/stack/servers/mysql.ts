/**
 * MySQL 9.x for `npm run test:mysql`: the other dialect that the services promise to run on. Its programs come from
 * Debian's packages, unpacked into the user's cache folder by debootstrap, and run from there by their own loader: they
 * are not installed, and need no chroot.
 */
import { appendFileSync, existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { say } from "../console.ts";
import { StackError } from "../errors.ts";
import { ownerVariable } from "../orphans.ts";
import { runCommand } from "../run-command.ts";
import { databaseAdminUrl, type StackSettings } from "../settings.ts";
import { explainLog, type ProcessSpec } from "../supervisor.ts";
import { inDraft } from "./downloads.ts";
import { answers, serverArguments } from "./mariadb.ts";

/** The only suite of Debian's that has MySQL; it moves on, so the version is told and not pinned. */
const suite = "sid";
const serverPackage = "mysql-server-core";
const cacheName = `mysql-${suite}`;
const linesShown = 8;

/**
 * Returns the folder that MySQL's programs are unpacked in, after fetching them where the user's cache folder has none.
 * @throws StackError that says what is missing and what to do.
 */
export async function ensureMysql(cacheFolder: string): Promise<string> {
  const folder = join(cacheFolder, cacheName);
  if (!existsSync(folder)) {
    await ensureDebootstrap();
    say("Fetching MySQL from Debian's packages (560 MB on the disk, half a minute; once) …");
    await inDraft(folder, unpack);
  }
  const { exitCode, output } = await runCommand([...program(folder), "--version"]);
  if (exitCode !== 0) {
    throw new StackError(`MySQL does not run here: ${lastLines(output)}\nRemove ${folder}, then run this again.`);
  }
  say(output.trim().replace(/^.*mysqld\s+/, "MySQL: "));
  return folder;
}

async function ensureDebootstrap(): Promise<void> {
  const why = "MySQL for the tests is unpacked from Debian's packages by debootstrap";
  if (process.getuid?.() !== 0) {
    throw new StackError(`${why}, which needs root. Run this as root once; after that anybody can.`);
  }
  if (Bun.which("debootstrap") !== null) return;
  if (Bun.which("apt-get") === null) {
    throw new StackError(`${why}, which is not installed; there is no apt-get to install it with.`);
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
    `debootstrap could not fetch MySQL (exit code ${exitCode}):\n${lastLines(output)}\nCheck that Debian's packages are reached, then run this again.`,
  );
}

/** Makes the data directory when there is none; then tells how to run the server on it. */
export async function prepareMysql(settings: StackSettings, programs: string): Promise<ProcessSpec> {
  const folder = join(settings.dataFolder, "mysql");
  if (!existsSync(folder)) await initialize(settings, programs, folder);
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

/** In a draft folder that is renamed when complete: a kill half-way leaves nothing to clean by hand. */
async function initialize(settings: StackSettings, programs: string, folder: string): Promise<void> {
  const draft = `${folder}.draft`;
  await rm(draft, { recursive: true, force: true });
  const logFile = join(settings.dataFolder, "logs/mysql.log");
  await mkdir(join(settings.dataFolder, "logs"), { recursive: true });
  const { exitCode, output } = await runCommand(
    [...program(programs), ...commonArguments(programs, draft), "--initialize-insecure"],
    { env: { [ownerVariable]: settings.dataFolder } },
  );
  appendFileSync(logFile, output);
  if (exitCode !== 0) {
    throw new StackError(`MySQL's data directory could not be made (exit code ${exitCode}).${explainLog(logFile)}`);
  }
  await rename(draft, folder);
}

/** The server, by the loader and the libraries that it was built with. */
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
    // mysqld refuses to run as root unless it is told to.
    ...(process.getuid?.() === 0 ? ["--user=root"] : []),
  ];
}

function lastLines(output: string): string {
  return output.trim().split("\n").slice(-linesShown).join("\n");
}
