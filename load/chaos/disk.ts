/** A disk of its own for the database, small enough to be full at will. */
import { mkdir, readFile, statfs } from "node:fs/promises";
import { messageOf } from "../../services/kit/errors.ts";
import { requireCommand } from "../../services/stack/run-command.ts";

/** A mounted tmpfs. */
export interface SmallDisk {
  /** Leaves no room: nothing that is there can grow. */
  fill(): Promise<void>;
  /** Makes room again. */
  free(): Promise<void>;
  unmount(): Promise<void>;
}

const sizeMaxBytes = 2_000_000_000;

/**
 * Mounts a tmpfs on `folder`, which takes memory only for what is written. Resolves to why not, where this user may not
 * mount anything.
 */
export async function mountSmallDisk(folder: string): Promise<SmallDisk | string> {
  await mkdir(folder, { recursive: true });
  const mount = (options: string) =>
    requireCommand(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], { folder: "/" });
  const unmount = () => requireCommand(["umount", folder], { folder: "/" });
  // Left behind by a run that was killed.
  while (await isMounted(folder)) await unmount();
  try {
    await mount(`size=${sizeMaxBytes}`);
  } catch (error) {
    return `no tmpfs can be mounted here (${messageOf(error).replaceAll("\n", " ").trim()})`;
  }
  return {
    async fill() {
      // The server may write between the look and the mount; then the new size is too small and is refused.
      for (let attempt = 1; ; attempt++) {
        const { blocks, bfree, bsize } = await statfs(folder);
        try {
          return await mount(`remount,size=${(blocks - bfree) * bsize}`);
        } catch (error) {
          if (attempt >= fillAttemptsMax) throw error;
        }
      }
    },
    free: () => mount(`remount,size=${sizeMaxBytes}`),
    unmount,
  };
}

const fillAttemptsMax = 10;

async function isMounted(folder: string): Promise<boolean> {
  const mounts = await readFile("/proc/mounts", "utf8");
  return mounts.split("\n").some((line) => line.split(" ")[1] === folder);
}
