import { UnavailableError } from "./errors.ts";

/** Takes items one by one and commits them in groups; each caller gets its own item's result after its commit. */
export interface GroupCommit<Item, Result> {
  /**
   * Resolves after the item's own commit. An item whose `signal` is aborted before its group starts is not committed.
   * @throws UnavailableError when `waitingMax` items wait already; otherwise what `commit` throws.
   */
  submit(item: Item, signal?: AbortSignal): Promise<Result>;
  /** Refuses new items and resolves when those under way are done. */
  close(): Promise<void>;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly signal: AbortSignal | undefined;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Group commit: whatever arrives while the previous group commits goes into the next one together. There is no timer:
 * an item that finds nothing under way is committed at once, alone.
 *
 * A group that fails is tried again item by item, so that a bad neighbour harms nobody, unless `isOutage` says that
 * nobody could succeed.
 */
export function createGroupCommit<Item, Result>(options: {
  /** At most this much in one group. */
  readonly sizeMax: number;
  /** What an item counts for; default 1. One that is larger than `sizeMax` gets a group of its own. */
  readonly sizeOf?: (item: Item) => number;
  /** At most this many items may wait. */
  readonly waitingMax: number;
  /** One transaction. Results are in the order of the items. */
  readonly commit: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly isOutage: (error: unknown) => boolean;
  /** Items with the same key never share a group: the second one sees what the first one did. */
  readonly keyOf?: (item: Item) => string;
  /** Waits for the rest of this turn of the event loop before the first group: for items that arrive in bursts. */
  readonly gathersTurn?: boolean;
}): GroupCommit<Item, Result> {
  let waiting: Waiting<Item, Result>[] = [];
  let isRunning = false;
  let finished: Promise<void> = Promise.resolve();
  let closed = false;

  const nextGroup = (): Waiting<Item, Result>[] => {
    const group: Waiting<Item, Result>[] = [];
    const left: Waiting<Item, Result>[] = [];
    const keys = new Set<string>();
    let size = 0;
    for (const entry of waiting) {
      if (entry.signal?.aborted) {
        entry.reject(entry.signal.reason);
        continue;
      }
      const key = options.keyOf?.(entry.item);
      const itemSize = options.sizeOf?.(entry.item) ?? 1;
      const fits = group.length === 0 || size + itemSize <= options.sizeMax;
      if (fits && (key === undefined || !keys.has(key))) {
        size += itemSize;
        if (key !== undefined) keys.add(key);
        group.push(entry);
      } else {
        left.push(entry);
      }
    }
    waiting = left;
    return group;
  };

  const commitGroup = async (group: readonly Waiting<Item, Result>[]): Promise<void> => {
    try {
      const results = await options.commit(group.map((entry) => entry.item));
      group.forEach((entry, index) => {
        entry.resolve(results[index] as Result);
      });
    } catch (error) {
      if (group.length === 1 || options.isOutage(error)) {
        for (const entry of group) entry.reject(error);
      } else {
        for (const entry of group) {
          // Its caller may have been answered meanwhile.
          if (entry.signal?.aborted) entry.reject(entry.signal.reason);
          else await commitGroup([entry]);
        }
      }
    }
  };

  const run = async (): Promise<void> => {
    isRunning = true;
    if (options.gathersTurn) await new Promise((resolve) => setImmediate(resolve));
    for (let group = nextGroup(); group.length > 0; group = nextGroup()) await commitGroup(group);
    // In the same turn as the look that found nothing: an item that comes later starts a new run.
    isRunning = false;
  };

  return {
    submit(item, signal) {
      if (closed) return Promise.reject(new UnavailableError("This process is closing; ask again."));
      if (waiting.length >= options.waitingMax) {
        return Promise.reject(
          new UnavailableError(`${options.waitingMax} requests are waiting already; ask again later.`),
        );
      }
      const { promise, resolve, reject } = Promise.withResolvers<Result>();
      waiting.push({ item, signal, resolve, reject });
      if (!isRunning) finished = run();
      return promise;
    },
    async close() {
      closed = true;
      await finished;
    },
  };
}
