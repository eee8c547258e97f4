// The way in from a bare machine: plain Node, no dependencies. Gets the pinned Bun and the locked packages, then hands over.
// Everything after it runs on Bun.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { constants, homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const cacheFolder = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "order-saga");
const bunVersion = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).engines.bun;

/** An end that the user can do something about: its message is printed, no stack trace. */
class BootstrapError extends Error {}

function say(message) {
  process.stderr.write(`${message}\n`);
}

/** True where the program runs and is the version that we pinned. npm leaves a placeholder when it may not run scripts. */
function isPinnedBun(program) {
  if (!existsSync(program)) return false;
  const result = spawnSync(program, ["--version"], { encoding: "utf8", timeout: 20_000 });
  return result.status === 0 && result.stdout.trim() === bunVersion;
}

/** The Bun program below an npm prefix: the package's own, or the one of the platform package that it should have copied. */
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
      `The local stack runs on Linux x64, and this is ${process.platform} ${process.arch}. Run it in containers instead: docker compose up (compose.yaml).`,
    );
  }
  say(`Installing Bun ${bunVersion} (once; it is kept in ${folder}) …`);
  // In a folder of our own, then renamed: two that run at once, or a kill half-way, leave nothing half-done behind.
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
        `npm could not install bun@${bunVersion} (${npm.error?.message ?? `exit code ${npm.status}`}). See its message above; check the network and the free disk space, then run this again.`,
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
      // Somebody else's is there. If it works, it is as good as ours; if not, it gives way.
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
    throw new BootstrapError(`Bun in ${folder} does not run. Remove the folder and run this again.`);
  return installed;
}

/** What decides which packages belong in node_modules. */
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

/** One `bun install` at a time in this tree; a lock whose holder is gone is taken over. */
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
          `Process ${holder} has been installing packages for two minutes. Stop it, then run this again.`,
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
        `bun install --frozen-lockfile failed:\n${install.stdout ?? ""}${install.stderr ?? ""}\nCheck the network and the free disk space; if package.json was changed, run: npm run bun -- install`,
      );
    }
    // A dependency changed by "npm run bun -- install" changes the lock file: its stamp is taken at the next run.
    writeFileSync(stampFile, stamp);
  });
}

/** The process ids of who started us: npm, or the shell that npm runs its scripts in and, above it, npm. */
function startedBy() {
  try {
    if (!/sh$/.test(readFileSync(`/proc/${process.ppid}/comm`, "utf8").trim())) return `${process.ppid}`;
    const stat = readFileSync(`/proc/${process.ppid}/stat`, "utf8");
    return `${process.ppid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]}`;
  } catch {
    return "gone";
  }
}

/** Runs Bun in our place: our signals are its signals, its end is our end. */
function runBun(bun, args) {
  const child = spawn(bun, args, {
    cwd: root,
    stdio: "inherit",
    // A stack ends itself when this process is killed.
    env: { ...process.env, ORDER_SAGA_PARENT_PID: String(process.pid) },
  });
  let asked = false;
  const forward = (signal) => {
    asked = true;
    child.kill(signal);
  };
  // Ctrl-C reaches the child by itself too (same process group); it bears being told twice. What matters is that we,
  // whose exit code the user sees, do not go before it.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => forward(signal));
  // npm killed with -9 tells nobody: without it nobody could press Ctrl-C, so the child is asked to end.
  const starters = startedBy();
  if (process.env.npm_lifecycle_event !== undefined) {
    setInterval(() => {
      if (!asked && startedBy() !== starters) forward("SIGTERM");
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
  // "install" and its like change what the stamp guards: they must be able to run while it does not match.
  const args = process.argv.slice(2);
  if (!["install", "add", "remove", "update", "patch"].includes(args[0])) ensurePackages(bun);
  runBun(bun, args);
} catch (error) {
  const isFull = error.code === "ENOSPC";
  if (!isFull && !(error instanceof BootstrapError)) throw error;
  say(
    isFull ? `The disk is full (${error.path ?? cacheFolder}). Free some space, then run this again.` : error.message,
  );
  process.exit(1);
}
