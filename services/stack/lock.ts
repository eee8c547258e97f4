import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../kit/backoff.ts";
import { StackError } from "./errors.ts";

/** Holds a data folder for one stack. */
export interface DataFolderLock {
  /** Says that this stack is on its way out: a second `npm start` then waits instead of refusing. */
  markStopping(): Promise<void>;
  release(): Promise<void>;
}

interface Holder {
  readonly pid: number;
  /** Start time in clock ticks since boot, and the boot: together with the pid they name one process for ever. */
  readonly identity: string;
  readonly stopping: boolean;
}

const waitForStoppingMs = 45_000;

/**
 * Takes the lock of `dataFolder`. A lock whose holder is gone is taken over.
 * @throws StackError naming the PID when a stack is running on the folder.
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
        `A stack is running on ${dataFolder} already (PID ${holder.pid}). Use it, or stop it with Ctrl-C or: kill ${holder.pid}. For a second one beside it, set STACK_DATA_DIR and STACK_PORT_OFFSET.`,
      );
    }
  }
  return {
    async markStopping() {
      // By rename: nobody ever reads half a lock.
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
      // Being written at this moment, or by a process that died in between.
      await sleep(50);
    }
  }
  return undefined;
}

/** Moves the stale lock aside under a name of our own, so that of two who see it only one takes it away. */
async function removeStale(file: string, seen: Holder | undefined): Promise<void> {
  const aside = `${file}.stale-${process.pid}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  const moved = await readHolder(aside);
  const isSame = moved?.pid === seen?.pid && moved?.identity === seen?.identity;
  // Somebody took it over between our look and our move: give it back.
  if (isSame) await rm(aside, { force: true });
  else await rename(aside, file);
}

async function identityOf(pid: number): Promise<string> {
  try {
    const [stat, boot] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "utf8"),
      readFile("/proc/sys/kernel/random/boot_id", "utf8"),
    ]);
    // The command's name, in parentheses, may hold spaces; the start time is the 20th field behind it.
    const startTicks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${boot.trim()}/${startTicks}`;
  } catch {
    return "gone";
  }
}
