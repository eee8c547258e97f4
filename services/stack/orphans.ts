import { readdir, readFile } from "node:fs/promises";
import { sleep } from "../kit/backoff.ts";

/**
 * Every process that the stack starts carries its data folder in this variable of its environment. What carries ours
 * while no supervisor of ours runs was left behind by a `kill -9`: no pid file can be lost or name a stranger.
 */
export const ownerVariable = "ORDER_SAGA_STACK_OWNER";

const graceMs = 5_000;

/** Stops what an earlier stack over the same data folder left running. Returns how many processes that were. */
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
      // Unreadable: another user's, or gone by now. Empty: a zombie, which holds nothing.
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
    // It has just ended by itself.
  }
}
