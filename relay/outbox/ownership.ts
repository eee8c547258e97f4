/**
 * One owner per source at a time: a MySQL advisory lock, on a connection of its own.
 *
 * The server releases the lock when the connection ends, and it ends the connection after 5 s without a statement. The
 * owner pings every second, and considers itself the owner only for 3 s after the start of a successful ping. A send takes
 * at most 2 s. So whatever an owner sends has ended before another can begin. The exception is an owner whose process was
 * frozen between its check and its send: that one send may come late.
 *
 * Replicas spread the sources among them without a coordinator: an owner hands a source over to a waiting replica that owns
 * fewer sources by two or more, once its send and mark are done (source-lock.ts).
 */
import { type Connection, createConnection } from "mysql2/promise";
import { sleep } from "../../services/kit/backoff.ts";
import { elapsedMs, type Instant, now } from "../../services/kit/instant.ts";
import type { Logger } from "../../services/kit/log.ts";
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

/** The time limit of a send. With `freshForMs` it makes the 5 s after which another replica can take over. */
export const sendTimeoutMs = 2_000;
const freshForMs = 3_000;
const pingIntervalMs = 1_000;
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
  /** When the last ping began that the database answered. */
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
        connection.on("error", () => void this.#become(false));
        connection.on("end", () => void this.#become(false));
        await this.#claimOn(connection);
      } catch (error) {
        log.warn({ err: error, table }, "the connection that holds the source's lock failed");
      } finally {
        void this.#become(false);
        connection?.destroy();
      }
      await sleep(pingIntervalMs, this.#closing.signal);
    }
  }

  async #claimOn(connection: Connection): Promise<void> {
    const { schema, table, log } = this.#options;
    const lock = new SourceLock({ connection, schema, table, ownedSources: this.#ownedSources, log });
    await lock.limitSilence();
    try {
      while (!this.#closing.signal.aborted) {
        const startedAt = now();
        const isOwner = await (this.#isOwner ? lock.keep(() => this.#become(false)) : lock.tryToOwn());
        this.#answeredAt = startedAt;
        void this.#become(isOwner);
        await sleep(Math.max(0, pingIntervalMs - elapsedMs(startedAt)), this.#closing.signal);
      }
    } finally {
      if (this.#isOwner && this.#closing.signal.aborted) await lock.release();
    }
  }

  /** Resolves when all listeners have settled. */
  #become(isOwner: boolean): Promise<unknown> {
    if (this.#isOwner === isOwner) return Promise.resolve();
    this.#isOwner = isOwner;
    this.#ownedSources.count += isOwner ? 1 : -1;
    this.#ownedSources.changedAtMs = performance.now();
    const { table, log } = this.#options;
    log.info({ table }, isOwner ? "owner of the source" : "no longer owner of the source");
    return Promise.allSettled(this.#listeners.map((listener) => listener(isOwner)));
  }
}
