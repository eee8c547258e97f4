import { existsSync } from "node:fs";
import { join } from "node:path";
import { inDraft } from "../../services/stack/draft-folder.ts";
import { StackError } from "../../services/stack/errors.ts";
import { runCommand } from "../../services/stack/run-command.ts";

const k6Version = "1.8.1";
const buildTimeoutMs = 900_000;

/**
 * Returns the path of the pinned k6. If the user's cache folder lacks it, builds it with Go from the module proxy, since
 * the npm package of that name is an empty placeholder.
 * @throws StackError if Go, the network or disk space is missing.
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
  options.report(`Building k6 ${k6Version} with Go, once; this takes two to three minutes and is kept in ${folder} …`);
  await inDraft(folder, (draft) => build(go, draft));
  options.report(`k6 ${k6Version} is built.`);
  return program;
}

async function build(go: string, folder: string): Promise<void> {
  const { exitCode, stderr } = await runCommand([go, "install", `go.k6.io/k6@v${k6Version}`], {
    env: { GOBIN: folder },
    timeoutMs: buildTimeoutMs,
  });
  if (exitCode === 0 && existsSync(join(folder, "k6"))) return;
  const lines = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("go: downloading"));
  const end = lines
    .slice(-8)
    .map((line) => `\n  ${line}`)
    .join("");
  throw new StackError(`k6 ${k6Version} could not be built (exit code ${exitCode}).${explain(stderr)}${end}`);
}

/** What a known error of Go means and how to solve it. */
function explain(output: string): string {
  if (/no space left on device/i.test(output)) return " The disk is full. Free 4 GB, then run this again.";
  if (/requires go >=/.test(output)) return " This Go is too old. Install the version named below, or a later one.";
  if (/dial tcp|proxyconnect|i\/o timeout|module lookup disabled/.test(output)) {
    return " Go's module proxy cannot be reached. Check the network and GOPROXY, then run this again.";
  }
  return " Go says:";
}
