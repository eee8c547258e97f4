import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { environment } from "../../services/kit/config.ts";
import { explained, StackError } from "../../services/stack/errors.ts";

const k6Version = "1.8.1";
const buildTimeoutMs = 900_000;

/**
 * Returns the pinned k6. Where the user's cache folder lacks it, it is built with Go from the module proxy: the npm
 * package of that name is an empty placeholder. Built in a folder of its own and renamed when complete, so that a kill
 * half-way leaves nothing that the next run trusts, and two builds at once do not disturb each other.
 * @throws StackError when Go, the network or disk space is missing.
 */
export async function ensureK6(options: {
  readonly cacheFolder: string;
  readonly report: (line: string) => void;
}): Promise<string> {
  const folder = join(options.cacheFolder, `k6-${k6Version}`);
  const program = join(folder, "k6");
  if (existsSync(program)) return program;
  const go = Bun.which("go");
  if (go === null) {
    throw new StackError(
      `k6 ${k6Version} is built with Go, and "go" is not on the PATH. Install Go (https://go.dev/dl, or your distribution's package "golang"), then run this again.`,
    );
  }
  options.report(`Building k6 ${k6Version} with Go (two to three minutes; once, it is kept in ${folder}) …`);
  await removeOldDrafts(options.cacheFolder);
  const draft = `${folder}.draft-${process.pid}`;
  try {
    await mkdir(draft, { recursive: true });
    await build(go, draft);
    // Somebody else may have been faster: what is there is complete, since only complete folders are renamed.
    await rename(draft, folder).catch((error) => {
      if (!existsSync(program)) throw error;
    });
  } catch (error) {
    throw explained(error);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  options.report(`k6 ${k6Version} is built.`);
  return program;
}

async function build(go: string, folder: string): Promise<void> {
  const child = Bun.spawn([go, "install", `go.k6.io/k6@v${k6Version}`], {
    env: { ...environment(), GOBIN: folder },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
    timeout: buildTimeoutMs,
  });
  const [output, exitCode] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  if (exitCode === 0 && existsSync(join(folder, "k6"))) return;
  const lines = output.split("\n").filter((line) => line !== "" && !line.startsWith("go: downloading"));
  const end = lines
    .slice(-8)
    .map((line) => `\n  ${line}`)
    .join("");
  throw new StackError(`k6 ${k6Version} could not be built (exit code ${exitCode}).${meaningOf(output)}${end}`);
}

/** In plain words, what Go's output is known to mean. */
function meaningOf(output: string): string {
  if (/no space left on device/i.test(output)) return " The disk is full: free 4 GB, then run this again.";
  if (/requires go >=/.test(output)) return " This Go is too old: install the version named below, or a later one.";
  if (/dial tcp|proxyconnect|i\/o timeout|module lookup disabled/.test(output)) {
    return " Go's module proxy cannot be reached: check the network and GOPROXY, then run this again.";
  }
  return " Go says:";
}

/** Drafts whose process is gone. */
async function removeOldDrafts(cacheFolder: string): Promise<void> {
  await mkdir(cacheFolder, { recursive: true });
  for (const name of await readdir(cacheFolder)) {
    const pid = /^k6-.*\.draft-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) {
      await rm(join(cacheFolder, name), { recursive: true, force: true });
    }
  }
}
