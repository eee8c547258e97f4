/** A small disk for the database alone, which a fault can fill. */
import { mkdir, readFile, statfs } from "node:fs/promises";
import { messageOf } from "../../services/kit/errors.ts";
import { requireCommand } from "../../services/stack/run-command.ts";

/** A mounted tmpfs. */
export interface SmallDisk {
  /** Leaves no free space. */
  fill(): Promise<void>;
  /** Restores the free space. */
  free(): Promise<void>;
  unmount(): Promise<void>;
}

const sizeMaxBytes = 2_000_000_000;
const fillAttemptsMax = 10;

/** Mounts a tmpfs, which takes memory only for what is written. If this user may not mount one, returns the reason. */
export async function mountSmallDisk(folder: string): Promise<SmallDisk | string> {
  await mkdir(folder, { recursive: true });
  const mount = (options: string) =>
    requireCommand(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], { folder: "/" });
  const unmount = () => requireCommand(["umount", folder], { folder: "/" });
  // A run that was killed may have left its mount behind.
  while (await isMounted(folder)) await unmount();
  try {
    await mount(`size=${sizeMaxBytes}`);
  } catch (error) {
    return `no tmpfs can be mounted here (${messageOf(error).replaceAll("\n", " ").trim()})`;
  }
  return {
    async fill() {
      // If the server writes between statfs and remount, the new size is too small and the kernel refuses it.
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

async function isMounted(folder: string): Promise<boolean> {
  const mounts = await readFile("/proc/mounts", "utf8");
  return mounts.split("\n").some((line) => line.split(" ")[1] === folder);
}
