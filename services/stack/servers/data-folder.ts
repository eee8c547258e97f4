import { appendFileSync, existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { StackError } from "../errors.ts";
import { ownerVariable } from "../orphans.ts";
import { runCommand } from "../run-command.ts";
import type { StackSettings } from "../settings.ts";
import { explainLog } from "../supervisor.ts";

/**
 * Returns the folder with a server's data, after letting the server's own program create it if there is none. The program
 * fills a draft folder that is renamed when complete, so a kill half-way leaves nothing to clean up.
 * @throws StackError with the end of the log, if the program fails.
 */
export async function ensureDataFolder(
  settings: StackSettings,
  server: {
    /** Names the folder and the log file. */
    readonly name: string;
    /** For the message of an error. */
    readonly title: string;
    readonly createIn: (draft: string) => readonly string[] | Promise<readonly string[]>;
  },
): Promise<string> {
  const folder = join(settings.dataFolder, server.name);
  if (existsSync(folder)) return folder;
  const draft = `${folder}.draft`;
  await rm(draft, { recursive: true, force: true });
  const logFolder = join(settings.dataFolder, "logs");
  await mkdir(logFolder, { recursive: true });
  const { exitCode, output } = await runCommand(await server.createIn(draft), {
    env: { [ownerVariable]: settings.dataFolder },
  });
  const logFile = join(logFolder, `${server.name}.log`);
  appendFileSync(logFile, output);
  if (exitCode !== 0) {
    throw new StackError(
      `${server.title}'s data folder could not be created (exit code ${exitCode}).${explainLog(logFile)}`,
    );
  }
  await rename(draft, folder);
  return folder;
}
