/**
 * One owner per source at a time: a MySQL advisory lock, on a connection of its own.
 *
 * The server releases the lock when the connection ends, and ends the connection after 5 s without a statement. The
 * owner counts itself as one only for 3 s after the start of a ping that succeeded, and a send takes 2 s at the most: what
 * an owner sends is over before another one can begin. (Only one that was frozen between looking and sending is late.)
 *
 * Replicas spread the sources among them with no coordinator. One that waits for a source holds a second lock, whose name
 * says how many sources it owns. An owner of at least two more lets go of the source, once what it has under way is done;
 * of those that wait, the one that owns fewest takes it.
 */
import { createHash } from "node:crypto";
import { type Connection, createConnection, type RowDataPacket } from "mysql2/promise";
import { sleep } from "../../services/kit/backoff.ts";
import { elapsedMs, type Instant, now } from "../../services/kit/instant.ts";
import type { Logger } from "../../services/kit/log.ts";

/** Whether this process owns a source. */
export interface Ownership {
  /** True while sending is allowed: asked right before each send. */
  isFresh(): boolean;
  /** True while the database has answered within the last seconds, to an owner or to one that waits. */
  isDatabaseReachable(): boolean;
  /**
   * Calls `listener` with every gain and loss. Where the source is let go of for another replica, that one gets it when
   * what `listener` returns is done, or after some seconds.
   */
  onChange(listener: (owned: boolean) => unknown): void;
  /** Releases the lock. */
  close(): Promise<void>;
}

const pingIntervalMs = 1_000;
const freshForMs = 3_000;
/** In seconds: the server lets go of an owner that was silent for so long. */
const serverWaitSeconds = 5;
const connectTimeoutMs = 1_000;
const statementTimeoutMs = 2_000;
const releaseTimeoutMs = 500;
/** What an owner that lets go may still have under way: a send of 2 s and its mark. Below the server's 5 s of silence. */
const handOverMaxMs = 3_000;
/** Between two sources that a process lets go of: by then the first one is counted where it went. */
const spreadIntervalMs = 3_000;

/** How many sources this process owns. One for all of its sources, see {@link claimOwnership}. */
export interface OwnedSources {
  count: number;
  /** When it last let go of one, or got one. */
  changedAtMs: number;
}

/** For the sources of one process. */
export function createOwnedSources(): OwnedSources {
  return { count: 0, changedAtMs: Number.NEGATIVE_INFINITY };
}

/** The lock of a table. Lock names are server-wide and have 64 characters at the most. */
export function lockNameOf(schema: string, table: string): string {
  return `relay:${createHash("sha256").update(`${schema}.${table}`).digest("hex").slice(0, 40)}`;
}

/** Held by one that waits for the source and owns `count` others. */
const waitingLockName = (lockName: string, count: number) => `${lockName}:${count}`;

/** Tries to own `table` from now on until closed: every second while another one does, and again after each loss. */
export function claimOwnership(options: {
  readonly databaseUrl: string;
  readonly schema: string;
  readonly table: string;
  readonly log: Logger;
  /** The same for all sources of a process: then they spread over replicas. Default: this source is on its own. */
  readonly ownedSources?: OwnedSources;
}): Ownership {
  const { log, ownedSources = createOwnedSources() } = options;
  const lockName = lockNameOf(options.schema, options.table);
  const closing = new AbortController();
  const listeners: ((owned: boolean) => unknown)[] = [];
  let owned = false;
  let answered: Instant | undefined;

  /** Resolves when all that was told has come to an end. */
  const become = (value: boolean): Promise<unknown> => {
    if (owned === value) return Promise.resolve();
    owned = value;
    ownedSources.count += value ? 1 : -1;
    ownedSources.changedAtMs = performance.now();
    log.info({ table: options.table }, value ? "owner of the source" : "no longer owner of the source");
    return Promise.allSettled(listeners.map((listener) => listener(value)));
  };

  const hold = async (connection: Connection) => {
    const ask = async (sql: string, names: readonly string[] = [lockName], timeout = statementTimeoutMs) => {
      const [rows] = await connection.query<RowDataPacket[]>({ sql, timeout }, [...names]);
      return rows[0];
    };
    /** The count in the name of the lock by which this one waits. */
    let waitsWith: number | undefined;
    let standsBackUntilMs = Number.NEGATIVE_INFINITY;
    const leaveLine = async () => {
      if (waitsWith === undefined) return;
      await ask("SELECT RELEASE_LOCK(?)", [waitingLockName(lockName, waitsWith)]);
      waitsWith = undefined;
    };

    /** The lock, unless another one has it, or one that owns fewer sources waits for it too. */
    const tryToOwn = async (): Promise<boolean> => {
      const { count } = ownedSources;
      if (waitsWith !== count) {
        await leaveLine();
        // Not to be had where another one with the same count waits: one of them says it for both.
        const inLine = await ask("SELECT GET_LOCK(?, 0) AS answer", [waitingLockName(lockName, count)]);
        if (inLine?.answer === 1) waitsWith = count;
      }
      if (performance.now() < standsBackUntilMs) {
        await ask("SELECT 1");
        return false;
      }
      const fewer = Array.from({ length: count }, (_, index) => waitingLockName(lockName, index));
      const isForAnother = ["FALSE", ...fewer.map(() => "IS_USED_LOCK(?) IS NOT NULL")].join(" OR ");
      const row = await ask(`SELECT CASE WHEN ${isForAnother} THEN 0 ELSE GET_LOCK(?, 0) END AS answer`, [
        ...fewer,
        lockName,
      ]);
      if (row?.answer !== 1) return false;
      await leaveLine();
      return true;
    };

    /** Whether the lock is still this one's. Lets go of it where a replica waits that owns fewer sources by two or more. */
    const keepOwning = async (): Promise<boolean> => {
      const isSettled = performance.now() - ownedSources.changedAtMs >= spreadIntervalMs;
      const fewer = Array.from({ length: isSettled ? Math.max(0, ownedSources.count - 1) : 0 }, (_, count) =>
        waitingLockName(lockName, count),
      );
      const isWanted = ["FALSE", ...fewer.map(() => "IS_USED_LOCK(?) IS NOT NULL")].join(" OR ");
      const row = await ask(`SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer, ${isWanted} AS isWanted`, [
        lockName,
        ...fewer,
      ]);
      if (row?.answer !== 1) throw new Error("The lock is gone, though its connection is not.");
      // Another of this process's sources may have gone while the answer was on its way.
      const isStillSettled = performance.now() - ownedSources.changedAtMs >= spreadIntervalMs;
      if (row.isWanted !== 1 || !isStillSettled) return true;
      log.info({ table: options.table, owned: ownedSources.count }, "for a replica that owns fewer sources");
      const waiting = new AbortController();
      await Promise.race([become(false), sleep(handOverMaxMs, waiting.signal)]);
      waiting.abort();
      standsBackUntilMs = performance.now() + spreadIntervalMs;
      await ask("SELECT RELEASE_LOCK(?)");
      return false;
    };

    await connection.query({ sql: `SET SESSION wait_timeout = ${serverWaitSeconds}`, timeout: statementTimeoutMs });
    try {
      while (!closing.signal.aborted) {
        const started = now();
        const holds = await (owned ? keepOwning() : tryToOwn());
        answered = started;
        void become(holds);
        await sleep(Math.max(0, pingIntervalMs - elapsedMs(started)), closing.signal);
      }
    } finally {
      if (owned && closing.signal.aborted) {
        // So that another one need not wait until the server has noticed.
        await ask("SELECT RELEASE_LOCK(?)", [lockName], releaseTimeoutMs).catch(() => undefined);
      }
    }
  };

  const keepTrying = async () => {
    while (!closing.signal.aborted) {
      let connection: Connection | undefined;
      try {
        connection = await createConnection({
          uri: options.databaseUrl,
          connectTimeout: connectTimeoutMs,
          charset: "UTF8MB4_BIN",
        });
        // A connection that breaks takes the lock with it; no need to wait for the next ping to find out.
        connection.on("error", () => void become(false));
        connection.on("end", () => void become(false));
        await hold(connection);
      } catch (error) {
        log.warn({ err: error, table: options.table }, "the ownership's connection failed");
      } finally {
        void become(false);
        connection?.destroy();
      }
      await sleep(pingIntervalMs, closing.signal);
    }
  };
  const running = keepTrying();

  return {
    isFresh: () => owned && answered !== undefined && elapsedMs(answered) < freshForMs,
    isDatabaseReachable: () => answered !== undefined && elapsedMs(answered) < freshForMs,
    onChange: (listener) => void listeners.push(listener),
    async close() {
      closing.abort();
      await running;
    },
  };
}
