import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { explainFullDisk } from "./errors.ts";

/**
 * Fills a draft folder and renames it to `folder` when it is complete. So a kill half-way leaves nothing that the next run
 * would use, and two runs at the same time do not disturb each other.
 * @throws StackError if the disk is full; otherwise what `fill` throws.
 */
export async function inDraft(folder: string, fill: (draft: string) => Promise<void>): Promise<void> {
  await removeOldDrafts(dirname(folder));
  const draft = `${folder}.draft-${process.pid}`;
  try {
    await mkdir(draft, { recursive: true });
    await fill(draft);
    // If another run was faster, its folder is complete: only complete folders are renamed.
    await rename(draft, folder).catch(async (error) => {
      if (!(await isFolder(folder))) throw error;
    });
  } catch (error) {
    throw explainFullDisk(error);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** Removes drafts whose process has ended: a kill during a download must not cost half a gigabyte for good. */
async function removeOldDrafts(parent: string): Promise<void> {
  await mkdir(parent, { recursive: true });
  for (const name of await readdir(parent)) {
    const pid = /\.draft-(\d+)(\.pom\.xml)?$/.exec(name)?.[1];
    if (pid !== undefined && !(await isFolder(`/proc/${pid}`))) {
      await rm(join(parent, name), { recursive: true, force: true });
    }
  }
}

export async function isFolder(path: string): Promise<boolean> {
  return readdir(path).then(
    () => true,
    () => false,
  );
}
