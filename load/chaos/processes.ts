import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../../services/kit/backoff.ts";
import type { StackSettings } from "../../services/stack/settings.ts";
import { type ProcessSpec, Supervisor } from "../../services/stack/supervisor.ts";
import { ExitWatch } from "./exits.ts";
import type { ProcessName } from "./topology.ts";

const pollMs = 50;
const readyTimeoutMs = 60_000;
const metricsTimeoutMs = 2_000;

/** The processes of the system under test: started, signalled and observed from outside. */
export class ChaosProcesses {
  readonly exits: ExitWatch;
  readonly #supervisor: Supervisor;
  readonly #specs = new Map<string, ProcessSpec>();
  readonly #logFolder: string;
  readonly #host: string;

  constructor(settings: StackSettings) {
    this.#host = settings.host;
    this.#logFolder = join(settings.dataFolder, "logs");
    this.exits = new ExitWatch((name) => this.#readLog(name).toString());
    this.#supervisor = new Supervisor({
      root: settings.root,
      dataFolder: settings.dataFolder,
      logFolder: this.#logFolder,
      onChange: () => this.exits.update(this.#supervisor.processIds()),
    });
  }

  /** Starts a process and resolves once it is ready. From then on it is restarted whenever it exits. */
  async start(spec: ProcessSpec): Promise<void> {
    this.#specs.set(spec.name, spec);
    await this.#supervisor.start(spec);
  }

  async stopAll(): Promise<void> {
    await this.#supervisor.stopAll();
  }

  /** Ends a process for good. No-op if there is none of that name. */
  async stop(name: string): Promise<void> {
    this.#specs.delete(name);
    await this.exits.tolerating(name, () => this.#supervisor.stop(name));
  }

  /** @throws Error if the process does not run at the moment. */
  pidOf(name: string): number {
    const pid = this.#supervisor.processIds()[name];
    if (pid === undefined) throw new Error(`${name} does not run.`);
    return pid;
  }

  /** Sends a signal. If the signal may end the process, its exit counts as explained. */
  signal(name: ProcessName, signal: NodeJS.Signals): void {
    const pid = this.pidOf(name);
    if (signal !== "SIGSTOP" && signal !== "SIGCONT") this.exits.expect(pid);
    process.kill(pid, signal);
  }

  /** Resolves to the new process id once the process has been restarted and is ready. @throws Error after a minute. */
  async untilRestarted(name: ProcessName, formerPid: number): Promise<number> {
    await this.#until(`${name} was not restarted`, async () => {
      const pid = this.#supervisor.processIds()[name];
      return pid !== undefined && pid !== formerPid && (await this.#isReady(name));
    });
    return this.pidOf(name);
  }

  /** Resolves once every process is ready. @throws Error if one of them is not ready after a minute. */
  async untilReady(): Promise<void> {
    for (const name of this.#specs.keys()) await this.#until(`${name} was not ready`, () => this.#isReady(name));
  }

  /** A metric of a process, summed over all label sets that contain `labels`. */
  async metric(instance: string, name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const port = this.#specs.get(instance)?.env.HEALTH_PORT;
    const response = await fetch(`http://${this.#host}:${port}/metrics`, {
      signal: AbortSignal.timeout(metricsTimeoutMs),
    });
    return sumOf(await response.text(), name, labels);
  }

  /** The same, summed over several processes. */
  async metricOf(instances: readonly string[], name: string, labels: Readonly<Record<string, string>> = {}) {
    const values = await Promise.all(instances.map((instance) => this.metric(instance, name, labels)));
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** The size of a process's log in bytes; pass it to {@link logSince} later. */
  logSize(name: ProcessName): number {
    return this.#readLog(name).length;
  }

  /** What a process has logged since its log had `size` bytes. */
  logSince(name: ProcessName, size: number): string {
    return this.#readLog(name).subarray(size).toString();
  }

  #readLog(name: string): Buffer {
    return readFileSync(join(this.#logFolder, `${name}.log`));
  }

  async #isReady(name: string): Promise<boolean> {
    const isReady = await this.#specs
      .get(name)
      ?.isReady()
      .catch(() => false);
    return isReady === true;
  }

  async #until(failure: string, holds: () => Promise<boolean>): Promise<void> {
    const deadlineMs = performance.now() + readyTimeoutMs;
    while (!(await holds())) {
      if (performance.now() > deadlineMs) throw new Error(`${failure} within ${readyTimeoutMs / 1_000} s.`);
      await sleep(pollMs);
    }
  }
}

/** Whether the kernel reports the process as stopped by a signal. */
export async function isFrozen(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
}

/** Sums a metric's samples in Prometheus text format, over the label sets that contain `labels`. */
export function sumOf(text: string, name: string, labels: Readonly<Record<string, string>>): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  let sum = 0;
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match?.[1] !== name || !wanted.every((it) => match[2]?.includes(it))) continue;
    sum += Number(match[3]);
  }
  return sum;
}
