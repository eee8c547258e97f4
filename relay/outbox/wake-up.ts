import { sleep } from "../../services/kit/backoff.ts";

/** The relay's sleep, which a hint ends early. A hint that arrives while the relay is awake ends its next sleep. */
export class WakeUp {
  #isHinted = false;
  #isClosed = false;
  #sleeping = new AbortController();

  get isHinted(): boolean {
    return this.#isHinted;
  }

  hint(): void {
    this.#isHinted = true;
    this.#sleeping.abort();
  }

  /** Forgets all hints so far. The caller is about to read what they announced. */
  reset(): void {
    this.#isHinted = false;
  }

  /** Resolves after `ms`, or as soon as there is a hint or the relay closes. */
  async sleep(ms: number): Promise<void> {
    this.#sleeping = new AbortController();
    if (!this.#isHinted && !this.#isClosed) await sleep(ms, this.#sleeping.signal);
  }

  /** Ends the current sleep and every later one. */
  close(): void {
    this.#isClosed = true;
    this.#sleeping.abort();
  }
}
