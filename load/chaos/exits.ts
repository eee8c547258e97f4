import { consumerStoppedMessage } from "../../services/kit/shutdown.ts";

/** How many lines from the end of a log to search: the restarted process may have written some of them. */
const logTailLines = 10;
const consumerStopped = `"msg":${JSON.stringify(consumerStoppedMessage)}`;

/** Watches which processes exit, and tells the exits that a fault explains from those that nothing explains. */
export class ExitWatch {
  readonly #readLog: (name: string) => string;
  readonly #signalled = new Set<number>();
  readonly #tolerated = new Set<string>();
  readonly #unexplained: string[] = [];
  #running: Readonly<Record<string, number>> = {};
  #consumerExits = 0;

  /** @param readLog returns a process's whole log. */
  constructor(readLog: (name: string) => string) {
    this.#readLog = readLog;
  }

  /** Expects the process with this id to exit, since it gets a signal that may end it. */
  expect(pid: number): void {
    this.#signalled.add(pid);
  }

  /** Ignores exits of `name` while `work` runs. */
  async tolerating<T>(name: string, work: () => Promise<T>): Promise<T> {
    this.#tolerated.add(name);
    try {
      return await work();
    } finally {
      this.#tolerated.delete(name);
    }
  }

  /** Takes note of the processes that run now, by name. */
  update(running: Readonly<Record<string, number>>): void {
    for (const [name, pid] of Object.entries(this.#running)) {
      if (running[name] === pid || this.#signalled.has(pid) || this.#tolerated.has(name)) continue;
      if (this.#consumerHasStopped(name)) this.#consumerExits++;
      else this.#unexplained.push(`${name} (PID ${pid}) exited, and no fault explains it`);
    }
    this.#running = running;
  }

  /** Exits that neither a fault nor the design explains. */
  unexplained(): readonly string[] {
    return [...this.#unexplained];
  }

  /** How often a service exited, as designed, because its Kafka client does not restart by itself. */
  consumerExits(): number {
    return this.#consumerExits;
  }

  #consumerHasStopped(name: string): boolean {
    const tail = this.#readLog(name).trimEnd().split("\n").slice(-logTailLines);
    return tail.some((line) => line.includes(consumerStopped));
  }
}
