/**
 * One owner per source at a time: a MySQL advisory lock, on a connection of its own.
 *
 * The server releases the lock when the connection ends, and it ends a connection that is silent for 5 s. The owner pings
 * every second, may send only for 3 s after the start of a successful ping, and gives up a send after 2 s
 * (ownership-times.ts). What follows depends on how an owner loses the source:
 *
 * - It hands the source over, is closed, or gets no more answers: its last send has ended or was given up before another
 *   replica can own the source.
 * - Its lock connection breaks, because its process dies, the connection is reset or killed, or the database restarts: the
 *   server releases the lock at once, and another replica may own the source within a second. If the process lives, it
 *   stops when it notices, which may take until 3 s after its last successful ping. A send in flight goes on for up to 2 s.
 * - Its process is suspended between its check and its send: that one send may come at any time later.
 *
 * So for a while two relays may send rows of one source. This duplicates records, and never changes the order of first
 * occurrences: the new owner begins with the first pending rows, so each of the two sends a row only after the earlier rows
 * of its key (relay.ts). A late mark as PUBLISHED is right whoever makes it, and marks are guarded by the row's status. One
 * gap remains: if a former owner marks a poison row FAILED just between the new owner's reads of the held keys and of the
 * pending rows, later rows of that key are sent first. An operator's command sends other rows than the first pending ones,
 * so it also waits for a former owner's last send (../operations/takeover.ts).
 *
 * Replicas spread the sources among them without a coordinator: an owner hands a source over to a waiting replica that owns
 * fewer sources by two or more, once its send and mark are done (source-lock.ts).
 */
import { type Connection, createConnection } from "mysql2/promise";
import { sleep } from "../../services/kit/backoff.ts";
import { elapsedMs, type Instant, now } from "../../services/kit/instant.ts";
import type { Logger } from "../../services/kit/log.ts";
import { freshForMs, pingIntervalMs } from "./ownership-times.ts";
import { createOwnedSources, type OwnedSources, SourceLock } from "./source-lock.ts";

/** Whether this process owns a source. */
export interface Ownership {
  /** True while sending is allowed. Asked right before each send. */
  isFresh(): boolean;
  /** True if the database has answered within the last seconds, whether or not this process is the owner. */
  isDatabaseReachable(): boolean;
  /**
   * Calls `listener` with every gain and loss. When the source is handed over to another replica, that replica gets it
   * once the promise that `listener` returns is settled, or after 3 s.
   */
  onChange(listener: (isOwner: boolean) => unknown): void;
  /** Releases the lock. */
  close(): Promise<void>;
}

const connectTimeoutMs = 1_000;

export interface ClaimOptions {
  readonly databaseUrl: string;
  readonly schema: string;
  readonly table: string;
  readonly log: Logger;
  /** Shared by all sources of a process, so that they spread over replicas. Default: this source is on its own. */
  readonly ownedSources?: OwnedSources;
}

/** Tries to own `table` until closed: every second while another replica owns it, and again after each loss. */
export function claimOwnership(options: ClaimOptions): Ownership {
  const claim = new Claim(options, options.ownedSources ?? createOwnedSources());
  const running = claim.run();
  return {
    isFresh: () => claim.isOwner && claim.hasRecentAnswer(),
    isDatabaseReachable: () => claim.hasRecentAnswer(),
    onChange: (listener) => claim.onChange(listener),
    async close() {
      claim.stop();
      await running;
    },
  };
}

class Claim {
  readonly #options: ClaimOptions;
  readonly #ownedSources: OwnedSources;
  readonly #closing = new AbortController();
  readonly #listeners: ((isOwner: boolean) => unknown)[] = [];
  #isOwner = false;
  /** The start of the last ping that the database answered. */
  #answeredAt: Instant | undefined;

  constructor(options: ClaimOptions, ownedSources: OwnedSources) {
    this.#options = options;
    this.#ownedSources = ownedSources;
  }

  get isOwner(): boolean {
    return this.#isOwner;
  }

  hasRecentAnswer(): boolean {
    return this.#answeredAt !== undefined && elapsedMs(this.#answeredAt) < freshForMs;
  }

  onChange(listener: (isOwner: boolean) => unknown): void {
    this.#listeners.push(listener);
  }

  stop(): void {
    this.#closing.abort();
  }

  /** Connects and claims, again after each failure, until stopped. */
  async run(): Promise<void> {
    const { databaseUrl: uri, table, log } = this.#options;
    while (!this.#closing.signal.aborted) {
      let connection: Connection | undefined;
      try {
        connection = await createConnection({ uri, connectTimeout: connectTimeoutMs, charset: "UTF8MB4_BIN" });
        // A connection that breaks takes the lock with it. No need to wait for the next ping to find out.
        connection.on("error", () => void this.#setOwner(false));
        connection.on("end", () => void this.#setOwner(false));
        await this.#claimOn(connection);
      } catch (error) {
        log.warn({ err: error, table }, "lock connection failed; reconnecting");
      } finally {
        void this.#setOwner(false);
        connection?.destroy();
      }
      await sleep(pingIntervalMs, this.#closing.signal);
    }
  }

  async #claimOn(connection: Connection): Promise<void> {
    const { schema, table, log } = this.#options;
    const lock = new SourceLock({ connection, schema, table, ownedSources: this.#ownedSources, log });
    await lock.setServerIdleTimeout();
    try {
      while (!this.#closing.signal.aborted) {
        const startedAt = now();
        const isOwner = await (this.#isOwner ? lock.keep(() => this.#setOwner(false)) : lock.tryToOwn());
        this.#answeredAt = startedAt;
        void this.#setOwner(isOwner);
        await sleep(Math.max(0, pingIntervalMs - elapsedMs(startedAt)), this.#closing.signal);
      }
    } finally {
      if (this.#isOwner && this.#closing.signal.aborted) await lock.release();
    }
  }

  /** Records whether this process is the owner, and calls the listeners if that is new. Resolves when they have settled. */
  #setOwner(isOwner: boolean): Promise<unknown> {
    if (this.#isOwner === isOwner) return Promise.resolve();
    this.#isOwner = isOwner;
    this.#ownedSources.count += isOwner ? 1 : -1;
    this.#ownedSources.changedAtMs = performance.now();
    const { table, log } = this.#options;
    log.info({ table }, isOwner ? "now owns the source" : "no longer owns the source");
    return Promise.allSettled(this.#listeners.map((listener) => listener(isOwner)));
  }
}
