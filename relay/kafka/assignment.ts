/** The member's current assignment. It tells work in progress when its partition may belong to another member. */
export class Assignment {
  #generation = 0;
  #ended = new AbortController();

  /**
   * Increases with each join. Work of an earlier generation must not commit: another member may have committed later
   * offsets.
   */
  get generation(): number {
    return this.#generation;
  }

  /** Aborted when the partitions may belong to other members. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** The member has joined the group again. */
  renew(): void {
    this.#generation++;
    this.end(new Error("The member has joined the group again."));
  }

  /** Aborts work in progress. The generation grows only with the next join. */
  end(reason: unknown): void {
    this.#ended.abort(reason);
    this.#ended = new AbortController();
  }
}
