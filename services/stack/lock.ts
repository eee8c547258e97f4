import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../kit/backoff.ts";
import { StackError } from "./errors.ts";

/** Keeps other stacks off a data folder. */
export interface DataFolderLock {
  /** Records that this stack is stopping. A second `npm start` then waits instead of failing. */
  markStopping(): Promise<void>;
  release(): Promise<void>;
}

interface Holder {
  readonly pid: number;
  /** The boot and the start time in clock ticks since it. Together with the pid they identify one process for good. */
  readonly identity: string;
  readonly stopping: boolean;
}

const waitForStoppingMs = 45_000;

/**
 * Locks `dataFolder`. Takes over a lock whose holder has ended, and waits for a stack that is stopping.
 * @throws StackError with the PID if a stack is running on the folder.
 */
export async function lockDataFolder(dataFolder: string): Promise<DataFolderLock> {
  await mkdir(dataFolder, { recursive: true });
  const file = join(dataFolder, "stack.lock");
  const mine: Holder = { pid: process.pid, identity: await identityOf(process.pid), stopping: false };
  const deadlineMs = Date.now() + waitForStoppingMs;
  while (!(await create(file, mine))) {
    const holder = await readHolder(file);
    if (holder === undefined || (await identityOf(holder.pid)) !== holder.identity) {
      await removeStale(file, holder);
    } else if (holder.stopping && Date.now() < deadlineMs) {
      await sleep(100);
    } else {
      throw new StackError(
        `A stack is already running on ${dataFolder} (PID ${holder.pid}). Use it, or stop it with Ctrl-C or kill ${holder.pid}. To run a second one beside it, set STACK_DATA_DIR and STACK_PORT_OFFSET.`,
      );
    }
  }
  return {
    async markStopping() {
      // Renamed into place, so that no reader sees a half-written lock.
      await writeFile(`${file}.stopping`, JSON.stringify({ ...mine, stopping: true }));
      await rename(`${file}.stopping`, file);
    },
    release: () => rm(file, { force: true }),
  };
}

async function create(file: string, holder: Holder): Promise<boolean> {
  try {
    const handle = await open(file, "wx");
    await handle.writeFile(JSON.stringify(holder));
    await handle.close();
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

async function readHolder(file: string): Promise<Holder | undefined> {
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      return JSON.parse(await readFile(file, "utf8"));
    } catch {
      // It is being written right now, or its writer died half-way.
      await sleep(50);
    }
  }
  return undefined;
}

/** Removes a stale lock. It is renamed first, so that of two processes that see it only one removes it. */
async function removeStale(file: string, seen: Holder | undefined): Promise<void> {
  const aside = `${file}.stale-${process.pid}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  const moved = await readHolder(aside);
  const isSame = moved?.pid === seen?.pid && moved?.identity === seen?.identity;
  // Another process took the lock over before our rename: put its lock back.
  if (isSame) await rm(aside, { force: true });
  else await rename(aside, file);
}

async function identityOf(pid: number): Promise<string> {
  try {
    const [stat, boot] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "utf8"),
      readFile("/proc/sys/kernel/random/boot_id", "utf8"),
    ]);
    // The command name, in parentheses, may contain spaces. The start time is the 20th field after it.
    const startTicks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${boot.trim()}/${startTicks}`;
  } catch {
    return "gone";
  }
}
