import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "../kit/backoff.ts";
import { environment } from "../kit/config.ts";
import { say } from "./console.ts";
import { StackError } from "./errors.ts";
import { ownerVariable } from "./orphans.ts";

const restartDelayFirstMs = 250;
const restartDelayMaxMs = 10_000;
/** A process that ran this long was well: its next restart begins with the shortest delay again. */
const wellAfterMs = 30_000;
const readyTimeoutMs = 60_000;
const readyPollMs = 50;
const stopTimeoutMs = 10_000;
const logBytesMax = 20_000_000;

/** Processes end in this order, stage by stage: who asks ends before who answers. */
export const stopStages = ["service", "relay", "gateway", "kafka", "mariadb"] as const;

/** A process to be kept running. */
export interface ProcessSpec {
  /** Unique; also the name of its log file. */
  readonly name: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly stage: (typeof stopStages)[number];
  /** Resolves to true once the process does its work. May throw while it does not. */
  isReady(): Promise<boolean>;
}

interface Child {
  readonly spec: ProcessSpec;
  readonly logFile: string;
  readonly stopping: AbortController;
  process: Bun.Subprocess | undefined;
  /** Resolves when the loop that keeps it running has ended. */
  ended: Promise<void>;
}

/**
 * Keeps processes running: one that dies is started again after a growing delay, and the console says so.
 * Each has a process group of its own, so that Ctrl-C reaches the supervisor alone, which then ends them in order.
 */
export class Supervisor {
  readonly #children = new Map<string, Child>();
  readonly #options: SupervisorOptions;
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    // However this process ends, short of kill -9, it leaves nobody behind.
    process.on("exit", () => this.#killAll());
  }

  /**
   * Starts a process and resolves when it is ready; from then on it is started again whenever it dies.
   * @throws StackError with the end of its log, when it ends before it is ready or is not ready within 60 s.
   */
  async start(spec: ProcessSpec): Promise<void> {
    if (this.#stopping) throw new StackError(`${spec.name} is not started: the stack is being stopped.`);
    const child: Child = {
      spec,
      logFile: openLogFile(this.#options.logFolder, spec.name),
      stopping: new AbortController(),
      process: undefined,
      ended: Promise.resolve(),
    };
    this.#children.set(spec.name, child);
    const first = this.#spawn(child);
    child.process = first;
    const ended = first.exited.then(() => "ended" as const);
    const outcome = await Promise.race([becomesReady(spec, AbortSignal.timeout(readyTimeoutMs)), ended]);
    if (outcome === "ended") {
      if (child.stopping.signal.aborted) return;
      throw new StackError(`${spec.name} ${endOf(first)} while it was starting.${explainLog(child.logFile)}`);
    }
    if (!outcome) {
      throw new StackError(
        `${spec.name} was not ready within ${readyTimeoutMs / 1_000} s.${explainLog(child.logFile)}`,
      );
    }
    child.ended = this.#keepRunning(child, first);
    this.#options.onChange();
  }

  /** The process ids of all that run now, by name. */
  processIds(): Readonly<Record<string, number>> {
    const ids: Record<string, number> = {};
    for (const { spec, process } of this.#children.values()) {
      if (process !== undefined && process.exitCode === null && process.signalCode === null)
        ids[spec.name] = process.pid;
    }
    return ids;
  }

  /** Ends one process for good: SIGTERM, and after 10 s SIGKILL. Does nothing when there is none of that name. */
  async stop(name: string): Promise<void> {
    const child = this.#children.get(name);
    if (child === undefined) return;
    child.stopping.abort();
    await this.#stop(child);
    this.#children.delete(name);
    this.#options.onChange();
  }

  /** Ends all processes, stage by stage: SIGTERM, and after 10 s SIGKILL. */
  async stopAll(): Promise<void> {
    this.#stopping = true;
    for (const child of this.#children.values()) child.stopping.abort();
    for (const stage of stopStages) {
      const children = [...this.#children.values()].filter((child) => child.spec.stage === stage);
      await Promise.all(children.map((child) => this.#stop(child)));
    }
    this.#children.clear();
  }

  async #stop(child: Child): Promise<void> {
    const running = child.process;
    if (running !== undefined) {
      signalGroup(running, "SIGTERM");
      const inTime = await Promise.race([running.exited.then(() => true), sleep(stopTimeoutMs).then(() => false)]);
      if (!inTime) {
        say(`${child.spec.name} did not end within ${stopTimeoutMs / 1_000} s and is killed.`);
        signalGroup(running, "SIGKILL");
        await running.exited;
      }
    }
    await child.ended;
  }

  async #keepRunning(child: Child, first: Bun.Subprocess): Promise<void> {
    const { signal } = child.stopping;
    let running = first;
    let delayMs = restartDelayFirstMs;
    for (;;) {
      const startedAtMs = performance.now();
      await running.exited;
      if (signal.aborted) return;
      if (performance.now() - startedAtMs >= wellAfterMs) delayMs = restartDelayFirstMs;
      say(`${child.spec.name} ${endOf(running)}; it is started again in ${delayMs} ms (log: ${child.logFile}).`);
      await sleep(delayMs, signal);
      if (signal.aborted) return;
      delayMs = Math.min(delayMs * 2, restartDelayMaxMs);
      running = this.#spawn(child);
      child.process = running;
      this.#options.onChange();
      void this.#reportReady(child, running);
    }
  }

  async #reportReady(child: Child, running: Bun.Subprocess): Promise<void> {
    const over = AbortSignal.any([child.stopping.signal, AbortSignal.timeout(readyTimeoutMs)]);
    const ended = running.exited.then(() => false);
    if (await Promise.race([becomesReady(child.spec, over), ended])) {
      if (!over.aborted) say(`${child.spec.name} is ready again (PID ${running.pid}).`);
    }
  }

  #spawn(child: Child): Bun.Subprocess {
    const log = openSync(child.logFile, "a");
    try {
      return Bun.spawn([...child.spec.command], {
        cwd: this.#options.root,
        env: { ...environment(), ...child.spec.env, [ownerVariable]: this.#options.dataFolder },
        stdin: "ignore",
        stdout: log,
        stderr: log,
        detached: true,
      });
    } finally {
      closeSync(log);
    }
  }

  #killAll(): void {
    for (const { process } of this.#children.values()) {
      if (process !== undefined) signalGroup(process, "SIGKILL");
    }
  }
}

export interface SupervisorOptions {
  readonly root: string;
  readonly dataFolder: string;
  readonly logFolder: string;
  /** Called when the set of running processes has changed. */
  readonly onChange: () => void;
}

async function becomesReady(spec: ProcessSpec, over: AbortSignal): Promise<boolean> {
  while (!over.aborted) {
    if (await spec.isReady().catch(() => false)) return true;
    await sleep(readyPollMs, over);
  }
  return false;
}

function signalGroup(child: Bun.Subprocess, name: NodeJS.Signals): void {
  if (child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, name);
  } catch {
    // It has just ended by itself.
  }
}

function endOf(child: Bun.Subprocess): string {
  return child.signalCode === null ? `ended with exit code ${child.exitCode}` : `was killed by ${child.signalCode}`;
}

function openLogFile(folder: string, name: string): string {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.log`);
  if (existsSync(file) && statSync(file).size > logBytesMax) renameSync(file, `${file}.1`);
  return file;
}

/** The end of a log, for an error message, and in plain words what it is known to mean. */
export function explainLog(file: string): string {
  const lines = readFileSync(file, "utf8").trim().split("\n").slice(-12);
  const end = lines.map((line) => `\n  ${line.slice(0, 300)}`).join("");
  const log = lines.join("\n");
  const meanings = [
    [/No space left on device|ENOSPC|Errcode: 28/i, "The disk is full: free some space, then run this again."],
    [/Address already in use|EADDRINUSE/i, "A port was taken meanwhile: stop who has it, then run this again."],
    [/OutOfMemoryError|Cannot allocate memory|ENOMEM/i, "There is not enough memory: the stack needs about 2 GB."],
  ] as const;
  const meaning = meanings.find(([pattern]) => pattern.test(log))?.[1];
  return `${meaning === undefined ? "" : ` ${meaning}`}\nThe end of ${file}:${end}`;
}
