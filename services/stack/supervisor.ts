import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "../kit/backoff.ts";
import { environment } from "../kit/config.ts";
import { endsWithin } from "../kit/deadline.ts";
import { linkSignals } from "../kit/linked-signal.ts";
import { say } from "./console.ts";
import { StackError } from "./errors.ts";
import { ownerVariable } from "./orphans.ts";

const restartDelayFirstMs = 250;
const restartDelayMaxMs = 10_000;
/** After a process has run this long, its next restart has the shortest delay again. */
const stableAfterMs = 30_000;
const readyTimeoutMs = 60_000;
const readyPollMs = 50;
const stopTimeoutMs = 10_000;
const logBytesMax = 20_000_000;

/** Processes are stopped in this order, stage by stage: clients before their servers. */
const stopStages = ["service", "relay", "gateway", "kafka", "mariadb"] as const;

/** A process to keep running. */
export interface ProcessSpec {
  /** Unique. The log file has the same name. */
  readonly name: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly stage: (typeof stopStages)[number];
  /** How long it may take to stop before it is killed. Default: 10 s. */
  readonly stopTimeoutMs?: number;
  /** Whether the process does its work. May throw while it does not. */
  isReady(): Promise<boolean>;
}

interface Child {
  readonly spec: ProcessSpec;
  readonly logFile: string;
  readonly stopping: AbortController;
  process: Bun.Subprocess | undefined;
  /** Resolves when the loop that restarts it has ended. */
  ended: Promise<void>;
}

export interface SupervisorOptions {
  readonly root: string;
  readonly dataFolder: string;
  readonly logFolder: string;
  /** Called when a process was started, restarted or stopped. */
  readonly onChange: () => void;
}

/**
 * Keeps processes running: restarts one that dies, after a growing delay, and reports it on the console. Each has its own
 * process group, so that Ctrl-C reaches the supervisor alone, which then stops them in order.
 */
export class Supervisor {
  readonly #children = new Map<string, Child>();
  readonly #options: SupervisorOptions;
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    // However this process ends, unless by a kill -9, it leaves no child behind.
    process.on("exit", () => this.#killAll());
  }

  /**
   * Starts a process and resolves when it is ready. From then on it is restarted whenever it dies.
   * @throws StackError with the end of its log, if it ends first or is not ready within 60 s.
   */
  async start(spec: ProcessSpec): Promise<void> {
    if (this.#stopping) throw new StackError(`${spec.name} cannot be started: the stack is stopping.`);
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

  /** The process ids of the running processes, by name. */
  processIds(): Readonly<Record<string, number>> {
    const ids: Record<string, number> = {};
    for (const { spec, process } of this.#children.values()) {
      if (process !== undefined && process.exitCode === null && process.signalCode === null)
        ids[spec.name] = process.pid;
    }
    return ids;
  }

  /** Stops a process for good: SIGTERM, and SIGKILL after 10 s. No-op if there is none of that name. */
  async stop(name: string): Promise<void> {
    const child = this.#children.get(name);
    if (child === undefined) return;
    child.stopping.abort();
    await this.#stop(child);
    this.#children.delete(name);
    this.#options.onChange();
  }

  /** Stops all processes, stage by stage: SIGTERM, and SIGKILL after 10 s. */
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
      const timeoutMs = child.spec.stopTimeoutMs ?? stopTimeoutMs;
      signalGroup(running, "SIGTERM");
      if (!(await endsWithin(running.exited, timeoutMs))) {
        say(`${child.spec.name} did not stop within ${timeoutMs / 1_000} s and is killed.`);
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
      if (performance.now() - startedAtMs >= stableAfterMs) delayMs = restartDelayFirstMs;
      say(`${child.spec.name} ${endOf(running)}; restarting it in ${delayMs} ms (log: ${child.logFile}).`);
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
    const ended = new AbortController();
    void running.exited.then(() => ended.abort());
    using cancelled = linkSignals(child.stopping.signal, ended.signal, AbortSignal.timeout(readyTimeoutMs));
    if ((await becomesReady(child.spec, cancelled.signal)) && !cancelled.signal.aborted) {
      say(`${child.spec.name} is ready again (PID ${running.pid}).`);
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

async function becomesReady(spec: ProcessSpec, cancelled: AbortSignal): Promise<boolean> {
  while (!cancelled.aborted) {
    if (await spec.isReady().catch(() => false)) return true;
    await sleep(readyPollMs, cancelled);
  }
  return false;
}

function signalGroup(child: Bun.Subprocess, name: NodeJS.Signals): void {
  if (child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, name);
  } catch {
    // It has just ended.
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

/** The last lines of a log for an error message, preceded by what a known error in them means. */
export function explainLog(file: string): string {
  const lines = readFileSync(file, "utf8").trim().split("\n").slice(-12);
  const end = lines.map((line) => `\n  ${line.slice(0, 300)}`).join("");
  const log = lines.join("\n");
  const meanings = [
    [/No space left on device|ENOSPC|Errcode: 28/i, "The disk is full: free some space, then try again."],
    [/Address already in use|EADDRINUSE/i, "Another program has taken a port: stop it, then try again."],
    [/OutOfMemoryError|Cannot allocate memory|ENOMEM/i, "There is not enough memory: the stack needs about 2 GB."],
  ] as const;
  const meaning = meanings.find(([pattern]) => pattern.test(log))?.[1];
  return `${meaning === undefined ? "" : ` ${meaning}`}\nThe end of ${file}:${end}`;
}
