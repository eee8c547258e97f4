/**
 * One owner per source at a time: a MySQL advisory lock, on a connection of its own.
 *
 * The server releases the lock when the connection ends, and ends the connection after 5 s without a statement. The
 * owner counts itself as one only for 3 s after the start of a ping that succeeded, and a send takes 2 s at the most: what
 * an owner sends is over before another one can begin. (Only one that was frozen between looking and sending is late.)
 */
import { createHash } from "node:crypto";
import { type Connection, createConnection, type RowDataPacket } from "mysql2/promise";
import { sleep } from "../services/kit/backoff.ts";
import type { Logger } from "../services/kit/log.ts";

/** Whether this process owns a source. */
export interface Ownership {
  /** True while sending is allowed: asked right before each send. */
  isFresh(): boolean;
  /** True while the database has answered within the last seconds, to an owner or to one that waits. */
  isDatabaseReachable(): boolean;
  /** Calls `listener` with every gain and loss. */
  onChange(listener: (owned: boolean) => void): void;
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

/** The lock of a table. Lock names are server-wide and have 64 characters at the most. */
export function lockNameOf(schema: string, table: string): string {
  return `relay:${createHash("sha256").update(`${schema}.${table}`).digest("hex").slice(0, 40)}`;
}

/** Tries to own `table` from now on until closed: every second while another one does, and again after each loss. */
export function claimOwnership(options: {
  readonly databaseUrl: string;
  readonly schema: string;
  readonly table: string;
  readonly log: Logger;
}): Ownership {
  const { log } = options;
  const lockName = lockNameOf(options.schema, options.table);
  const closing = new AbortController();
  const listeners: ((owned: boolean) => void)[] = [];
  let owned = false;
  let answered: Instant | undefined;

  const become = (value: boolean) => {
    if (owned === value) return;
    owned = value;
    log.info({ table: options.table }, value ? "owner of the source" : "no longer owner of the source");
    for (const listener of listeners) listener(value);
  };

  const hold = async (connection: Connection) => {
    const ask = async (sql: string, timeout = statementTimeoutMs) => {
      const [rows] = await connection.query<RowDataPacket[]>({ sql, timeout }, [lockName]);
      return rows[0]?.answer === 1;
    };
    await connection.query({ sql: `SET SESSION wait_timeout = ${serverWaitSeconds}`, timeout: statementTimeoutMs });
    try {
      while (!closing.signal.aborted) {
        const started = now();
        const holds = await ask(
          owned ? "SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer" : "SELECT GET_LOCK(?, 0) AS answer",
        );
        answered = started;
        if (owned && !holds) throw new Error("The lock is gone, though its connection is not.");
        become(holds);
        await sleep(pingIntervalMs - elapsedMs(started), closing.signal);
      }
    } finally {
      if (owned && closing.signal.aborted) {
        // So that another one need not wait until the server has noticed.
        await ask("SELECT RELEASE_LOCK(?) AS answer", releaseTimeoutMs).catch(() => undefined);
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
        connection.on("error", () => become(false));
        connection.on("end", () => become(false));
        await hold(connection);
      } catch (error) {
        log.warn({ err: error, table: options.table }, "the ownership's connection failed");
      } finally {
        become(false);
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

interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

const now = (): Instant => ({ monotonicMs: performance.now(), wallMs: Date.now() });

/** By the clock that says more: the monotonic one may stand still while a machine sleeps, the other one may be set. */
function elapsedMs(since: Instant): number {
  return Math.max(performance.now() - since.monotonicMs, Date.now() - since.wallMs);
}
