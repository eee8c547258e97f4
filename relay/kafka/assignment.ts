/** The member's current assignment. Work on a record asks here whether the member may still own its partition. */
export class Assignment {
  #generation = 0;
  #ended = new AbortController();

  /** Increases with each join. Work of an earlier generation must not commit: another member may be further. */
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

  end(reason: unknown): void {
    this.#ended.abort(reason);
    this.#ended = new AbortController();
  }
}
