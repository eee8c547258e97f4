/** What happened in a walk: how many steps it took, which faults struck it, and its last steps in words. */
const traceMax = 60;

export class Journal {
  readonly #isTraced: boolean;
  readonly #faults = new Map<string, number>();
  readonly #trace: string[] = [];
  #steps = 0;

  constructor(isTraced: boolean) {
    this.#isTraced = isTraced;
  }

  get steps(): number {
    return this.#steps;
  }

  get faults(): ReadonlyMap<string, number> {
    return this.#faults;
  }

  /** The last steps; empty unless the walk is traced. */
  get trace(): readonly string[] {
    return this.#trace;
  }

  step(describe: () => string): void {
    this.#steps++;
    if (!this.#isTraced) return;
    this.#trace.push(describe());
    if (this.#trace.length > traceMax) this.#trace.shift();
  }

  fault(name: string): void {
    this.#faults.set(name, (this.#faults.get(name) ?? 0) + 1);
    this.step(() => name);
  }
}
