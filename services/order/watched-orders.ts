import type { OrderView } from "./repository.ts";

/** What one stream sends next. It holds only the newest state that the stream has not sent yet, so a slow stream skips states. */
export class Mailbox {
  #latest: OrderView | undefined;
  #awake = Promise.withResolvers<void>();

  get isEmpty(): boolean {
    return this.#latest === undefined;
  }

  /** Replaces the content and wakes the stream. */
  put(order: OrderView): void {
    this.#latest = order;
    this.wake();
  }

  /** Fills the mailbox if it is empty. */
  putIfEmpty(order: OrderView): void {
    this.#latest ??= order;
  }

  /** Empties the mailbox. Returns its content, or undefined if there was none. */
  take(): OrderView | undefined {
    const order = this.#latest;
    this.#latest = undefined;
    return order;
  }

  readonly wake = (): void => this.#awake.resolve();

  /**
   * Waits for `put` or `wake`, at most `waitMs`. Returns false after that time. A wake before the call is lost, so call it
   * right after `take` has returned undefined, with no await in between.
   */
  async wait(waitMs: number): Promise<boolean> {
    this.#awake = Promise.withResolvers();
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      this.wake();
    }, waitMs);
    await this.#awake.promise;
    clearTimeout(timer);
    return !timedOut;
  }
}

interface WatchedOrder {
  /** The newest version that was read; 0 before the first read. */
  version: number;
  readonly mailboxes: Set<Mailbox>;
}

/** The orders that this process watches for its clients, and who watches them. */
export class WatchedOrders {
  readonly #orders = new Map<string, WatchedOrder>();
  #watchersCount = 0;

  get watchersCount(): number {
    return this.#watchersCount;
  }

  get orderIds(): Iterable<string> {
    return this.#orders.keys();
  }

  has(orderId: string): boolean {
    return this.#orders.has(orderId);
  }

  /** Adds a watcher, and returns its mailbox. */
  add(orderId: string): Mailbox {
    const mailbox = new Mailbox();
    const order = this.#orders.get(orderId) ?? { version: 0, mailboxes: new Set() };
    this.#orders.set(orderId, order);
    order.mailboxes.add(mailbox);
    this.#watchersCount++;
    return mailbox;
  }

  remove(orderId: string, mailbox: Mailbox): void {
    this.#watchersCount--;
    const order = this.#orders.get(orderId);
    order?.mailboxes.delete(mailbox);
    if (order?.mailboxes.size === 0) this.#orders.delete(orderId);
  }

  /** Wakes every stream, so that it looks at what has changed around it. */
  wakeAll(): void {
    for (const { mailboxes } of this.#orders.values()) for (const mailbox of mailboxes) mailbox.wake();
  }

  /** Delivers the order to its watchers if it is newer than the last delivered one. Returns whether it is. */
  readonly deliver = (order: OrderView): boolean => {
    const watched = this.#orders.get(order.orderId);
    if (watched === undefined || order.version <= watched.version) return false;
    watched.version = order.version;
    for (const mailbox of watched.mailboxes) mailbox.put(order);
    return true;
  };
}
