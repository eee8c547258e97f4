// The entry point on a bare machine. Runs on plain Node without dependencies, installs the pinned Bun and the locked
// packages, then runs Bun. Everything else runs on Bun.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { constants, homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const cacheFolder = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "order-saga");
const bunVersion = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).engines.bun;

/** An error that the user can fix. Its message is printed without a stack trace. */
class BootstrapError extends Error {}

function say(message) {
  process.stderr.write(`${message}\n`);
}

/** Whether the program runs and has the pinned version. If npm may not run scripts, it leaves a placeholder. */
function isPinnedBun(program) {
  if (!existsSync(program)) return false;
  const result = spawnSync(program, ["--version"], { encoding: "utf8", timeout: 20_000 });
  return result.status === 0 && result.stdout.trim() === bunVersion;
}

/** The Bun program below an npm prefix: in the package itself, or in the platform package that it is copied from. */
function findBun(prefix) {
  const modules = join(prefix, "node_modules");
  const candidates = ["bun/bin/bun.exe", "@oven/bun-linux-x64/bin/bun", "@oven/bun-linux-x64-baseline/bin/bun"];
  return candidates.map((candidate) => join(modules, candidate)).find(isPinnedBun);
}

function ensureBun() {
  const folder = join(cacheFolder, `bun-${bunVersion}`);
  const present = findBun(folder);
  if (present !== undefined) return present;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new BootstrapError(
      `The local stack runs on Linux x64, but this is ${process.platform} ${process.arch}. Run it in containers instead: docker compose up (compose.yaml).`,
    );
  }
  say(`Installing Bun ${bunVersion} (once, in ${folder}) …`);
  // Installed in a draft folder, then renamed: neither a kill half-way nor two runs at once leave anything incomplete.
  const draft = `${folder}.draft-${process.pid}`;
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(draft, { recursive: true });
  try {
    const npm = spawnSync(
      "npm",
      [
        "install",
        "--prefix",
        draft,
        "--no-save",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
      ].concat(`bun@${bunVersion}`),
      { cwd: draft, stdio: ["ignore", "ignore", "inherit"] },
    );
    if (npm.error !== undefined || npm.status !== 0) {
      throw new BootstrapError(
        `npm could not install bun@${bunVersion} (${npm.error?.message ?? `exit code ${npm.status}`}). See its message above. Check the network and the free disk space, then try again.`,
      );
    }
    if (findBun(draft) === undefined) {
      spawnSync(process.execPath, ["install.js"], {
        cwd: join(draft, "node_modules/bun"),
        stdio: ["ignore", "ignore", "inherit"],
      });
    }
    if (findBun(draft) === undefined) {
      throw new BootstrapError(
        `bun@${bunVersion} was installed but does not run on this machine. Run it in containers instead: docker compose up (compose.yaml).`,
      );
    }
    try {
      renameSync(draft, folder);
    } catch {
      // There is a folder already. Keep it if its Bun works, for example another run's; otherwise replace it.
      if (findBun(folder) === undefined) {
        rmSync(folder, { recursive: true, force: true });
        renameSync(draft, folder);
      }
    }
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  const installed = findBun(folder);
  if (installed === undefined)
    throw new BootstrapError(`Bun in ${folder} does not run. Remove the folder, then try again.`);
  return installed;
}

/** A digest of all files that decide what is in node_modules. */
function packagesStamp() {
  const hash = createHash("sha256");
  const patchesFolder = join(root, ".patches");
  const patches = existsSync(patchesFolder) ? readdirSync(patchesFolder).sort() : [];
  for (const file of ["package.json", "bun.lock", "bunfig.toml", ...patches.map((name) => `.patches/${name}`)]) {
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update("\0");
  }
  return hash.digest("hex");
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Allows one `bun install` at a time in this tree. Takes over a lock whose holder has ended. */
function withInstallLock(run) {
  const lockFile = join(root, "node_modules/.order-saga-installing");
  mkdirSync(dirname(lockFile), { recursive: true });
  const deadline = Date.now() + 120_000;
  for (;;) {
    try {
      writeFileSync(lockFile, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      const holder = existsSync(lockFile) ? Number(readFileSync(lockFile, "utf8")) : 0;
      if (Date.now() > deadline)
        throw new BootstrapError(
          `Process ${holder} has been installing packages for two minutes. Stop it, then try again.`,
        );
      if (holder > 0 && !isAlive(holder)) rmSync(lockFile, { force: true });
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  }
  try {
    run();
  } finally {
    rmSync(lockFile, { force: true });
  }
}

function ensurePackages(bun) {
  const stampFile = join(root, "node_modules/.order-saga-stamp");
  const stamp = packagesStamp();
  const isCurrent = () => existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp;
  if (isCurrent()) return;
  withInstallLock(() => {
    if (isCurrent()) return;
    say("Installing the packages of the lock file …");
    const install = spawnSync(bun, ["install", "--frozen-lockfile"], { cwd: root, encoding: "utf8" });
    if (install.status !== 0) {
      throw new BootstrapError(
        `bun install --frozen-lockfile failed:\n${install.stdout ?? ""}${install.stderr ?? ""}\nCheck the network and the free disk space. If you changed package.json, run: npm run bun -- install`,
      );
    }
    // The digest from before the install: "npm run bun -- install" changes the lock file, and the next run installs again.
    writeFileSync(stampFile, stamp);
  });
}

/** The process ids of our parents: npm, or the shell that npm runs its scripts in and npm above it. */
function parentIds() {
  try {
    if (!/sh$/.test(readFileSync(`/proc/${process.ppid}/comm`, "utf8").trim())) return `${process.ppid}`;
    const stat = readFileSync(`/proc/${process.ppid}/stat`, "utf8");
    return `${process.ppid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]}`;
  } catch {
    return "gone";
  }
}

/** Runs Bun in our place: forwards our signals to it and exits as it does. */
function runBun(bun, args) {
  const child = spawn(bun, args, {
    cwd: root,
    stdio: "inherit",
    // Lets the stack notice if we are killed, so that it stops.
    env: { ...process.env, ORDER_SAGA_PARENT_PID: String(process.pid) },
  });
  let isStopping = false;
  const forward = (signal) => {
    isStopping = true;
    child.kill(signal);
  };
  // Ctrl-C also reaches the child directly, in the same process group; it ignores the repeated signal. We handle signals
  // so that we do not exit before the child: the user sees our exit code.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => forward(signal));
  // If npm is killed with -9, Ctrl-C no longer reaches us. So we watch for that and stop the child.
  const parents = parentIds();
  if (process.env.npm_lifecycle_event !== undefined) {
    setInterval(() => {
      if (!isStopping && parentIds() !== parents) forward("SIGTERM");
    }, 250).unref();
  }
  child.on("error", (error) => {
    say(`Bun could not be started: ${error.message}`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => process.exit(signal === null ? code : 128 + constants.signals[signal]));
}

try {
  const bun = ensureBun();
  // These change the dependencies, so they must run although node_modules does not match the lock file.
  const args = process.argv.slice(2);
  if (!["install", "add", "remove", "update", "patch"].includes(args[0])) ensurePackages(bun);
  runBun(bun, args);
} catch (error) {
  const isFull = error.code === "ENOSPC";
  if (!isFull && !(error instanceof BootstrapError)) throw error;
  say(isFull ? `The disk is full (${error.path ?? cacheFolder}). Free some space, then try again.` : error.message);
  process.exit(1);
}
