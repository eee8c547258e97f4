/** Runs work on the same partition one after the other, in the order of the calls. */
export class PartitionQueue {
  /** By partition, settles when the last work on it has ended. Never rejects. */
  readonly #ends = new Map<number, Promise<void>>();

  /** Settles as `work` does, which starts when all earlier work on the partition has ended, whether or not it failed. */
  run(partition: number, work: () => Promise<void>): Promise<void> {
    const running = (this.#ends.get(partition) ?? Promise.resolve()).then(work);
    this.#ends.set(
      partition,
      running.catch(() => undefined),
    );
    return running;
  }
}
