import { UnavailableError } from "./errors.ts";

/** Takes items one at a time and commits them in groups. Each caller gets its own item's result after its commit. */
export interface GroupCommit<Item, Result> {
  /**
   * Resolves after the item's commit. An item whose `signal` is aborted before its group starts is not committed.
   * @throws UnavailableError when `waitingMax` items are waiting already or the group commit is closed; otherwise what
   * `commit` throws.
   */
  submit(item: Item, signal?: AbortSignal): Promise<Result>;
  /** Refuses new items and resolves when all accepted items are done. */
  close(): Promise<void>;
}

export interface GroupCommitOptions<Item, Result> {
  /** The largest group, in items or in what `sizeOf` counts. */
  readonly sizeMax: number;
  /** How much an item counts; default 1. An item larger than `sizeMax` gets a group of its own. */
  readonly sizeOf?: (item: Item) => number;
  /** At most this many items may wait. */
  readonly waitingMax: number;
  /** Commits the items in one transaction and returns their results in the same order. */
  readonly commit: (items: readonly Item[]) => Promise<readonly Result[]>;
  /** True for an error that every item would meet: the group is then not retried item by item. */
  readonly isOutage: (error: unknown) => boolean;
  /** Items with the same key never share a group, so the second sees what the first did. */
  readonly keyOf?: (item: Item) => string;
  /** Delays the first group until the end of this turn of the event loop, for items that arrive in bursts. */
  readonly gathersTurn?: boolean;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly signal: AbortSignal | undefined;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Group commit: items that arrive while one group commits go into the next group together. There is no timer: an item
 * that arrives while no group commits is committed at once, alone.
 *
 * If a group fails, each item is retried alone, so one bad item cannot fail the others, unless `isOutage` says that none
 * can succeed.
 */
export function createGroupCommit<Item, Result>(options: GroupCommitOptions<Item, Result>): GroupCommit<Item, Result> {
  const waiting: Waiting<Item, Result>[] = [];
  let isRunning = false;
  let finished: Promise<void> = Promise.resolve();
  let closed = false;

  const nextGroup = () => takeGroup(waiting, options);

  const run = async (): Promise<void> => {
    isRunning = true;
    if (options.gathersTurn) await new Promise((resolve) => setImmediate(resolve));
    for (let group = nextGroup(); group.length > 0; group = nextGroup()) await commitGroup(group, options);
    // There must be no await between taking the empty group and this line, so that a later item starts a new run.
    isRunning = false;
  };

  return {
    submit(item, signal) {
      if (closed) return Promise.reject(new UnavailableError("This process is shutting down; try again."));
      if (waiting.length >= options.waitingMax) {
        return Promise.reject(
          new UnavailableError(`${options.waitingMax} requests are waiting already; try again later.`),
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

/**
 * Removes the next group from the front of `waiting`, within the size limit and without two items of one key. Looks at no
 * more items than fit a group, so its cost does not grow with the number that wait.
 */
function takeGroup<Item, Result>(
  waiting: Waiting<Item, Result>[],
  { sizeMax, sizeOf, keyOf }: GroupCommitOptions<Item, Result>,
): readonly Waiting<Item, Result>[] {
  const group: Waiting<Item, Result>[] = [];
  const passedOver: Waiting<Item, Result>[] = [];
  const keys = new Set<string>();
  let size = 0;
  let seen = 0;
  for (const entry of waiting) {
    if (size >= sizeMax || group.length + passedOver.length >= sizeMax) break;
    seen++;
    if (entry.signal?.aborted) {
      entry.reject(entry.signal.reason);
      continue;
    }
    const key = keyOf?.(entry.item);
    const itemSize = sizeOf?.(entry.item) ?? 1;
    const fits = group.length === 0 || size + itemSize <= sizeMax;
    if (fits && (key === undefined || !keys.has(key))) {
      size += itemSize;
      if (key !== undefined) keys.add(key);
      group.push(entry);
    } else {
      passedOver.push(entry);
    }
  }
  waiting.splice(0, seen, ...passedOver);
  return group;
}

async function commitGroup<Item, Result>(
  group: readonly Waiting<Item, Result>[],
  options: GroupCommitOptions<Item, Result>,
): Promise<void> {
  try {
    const results = await options.commit(group.map((entry) => entry.item));
    group.forEach((entry, index) => {
      entry.resolve(results[index] as Result);
    });
  } catch (error) {
    if (group.length === 1 || options.isOutage(error)) {
      for (const entry of group) entry.reject(error);
      return;
    }
    for (const entry of group) {
      // Its caller may have stopped waiting in the meantime.
      if (entry.signal?.aborted) entry.reject(entry.signal.reason);
      else await commitGroup([entry], options);
    }
  }
}
