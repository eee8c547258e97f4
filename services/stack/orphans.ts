import { readdir, readFile } from "node:fs/promises";
import { sleep } from "../kit/backoff.ts";

/**
 * Every process that the stack starts has the stack's data folder in this environment variable. If one runs while its
 * supervisor does not, a `kill -9` left it behind. A pid file could be lost, or name an unrelated process.
 */
export const ownerVariable = "ORDER_SAGA_STACK_OWNER";

const graceMs = 5_000;

/** Stops the processes that an earlier stack left running on the same data folder. Returns how many there were. */
export async function stopOrphans(dataFolder: string): Promise<number> {
  const orphans = await findOwned(dataFolder);
  for (const pid of orphans) signal(pid, "SIGTERM");
  const deadlineMs = Date.now() + graceMs;
  let left = orphans;
  while (left.length > 0) {
    if (Date.now() > deadlineMs) for (const pid of left) signal(pid, "SIGKILL");
    await sleep(50);
    left = await findOwned(dataFolder);
  }
  return orphans.length;
}

async function findOwned(dataFolder: string): Promise<readonly number[]> {
  const mark = `${ownerVariable}=${dataFolder}`;
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0 && pid !== process.pid);
  const owned = await Promise.all(
    pids.map(async (pid) => {
      // Unreadable: it belongs to another user or has ended. Empty: it is a zombie and holds no ports or files.
      const environ = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
      return environ.split("\0").includes(mark);
    }),
  );
  return pids.filter((_, index) => owned[index]);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has just ended.
  }
}
