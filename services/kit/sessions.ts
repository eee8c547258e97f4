/**
 * A pool of sessions. Each is configured in one packet before its first statement, has a time limit for every statement,
 * and is closed before the server would close it for being idle.
 *
 * A session that stands idle inside a transaction for a few seconds is ended by the server, because its process or host has
 * frozen: otherwise its locks would stay for as long as the server's `wait_timeout`, 8 hours by default.
 */
import { createPool, type Pool, type PoolConnection } from "mysql2";
import type { Row } from "./database.ts";
import {
  errorNumber,
  isOutage,
  RowsChangedError,
  SessionRefusedError,
  StatementTimeoutError,
} from "./database-errors.ts";
import { endsWithin } from "./deadline.ts";
import { messageOf } from "./errors.ts";
import { elapsedMs, type Instant, now } from "./instant.ts";
import { isRowCheckError } from "./statements.ts";

/** Sends one packet. Resolves to the driver's result, or to a list of results if the packet held several statements. */
export type Query = (sql: string, values: readonly unknown[]) => Promise<unknown>;

/** A connection of a pool, with its settings. */
export interface Session {
  readonly query: Query;
  /** Returns a usable session to the pool and closes any other. */
  giveBack(isUsable: boolean): void;
}

/** How often a pool was asked for a session, since it was opened. */
export interface PoolUsage {
  readonly acquired: number;
  /** Callers that had to wait because all connections were in use. */
  readonly waited: number;
}

export interface SessionPool {
  /** A session that is ready for statements. */
  acquire(): Promise<Session>;
  usage(): PoolUsage;
  close(): Promise<void>;
}

/** After how many idle seconds the server ends a session. */
export interface IdleLimits {
  /** Inside a transaction. On MySQL, which has no such limit, it holds outside of transactions too. */
  readonly inTransactionSeconds: number;
  /** Outside of transactions, on MariaDB. */
  readonly sessionSeconds: number;
}

/** No service waits inside a transaction: between two statements it only computes. */
const serviceIdleLimits: IdleLimits = { inTransactionSeconds: 6, sessionSeconds: 60 };

export interface SessionOptions {
  /** mysql://user:password@host:port/schema */
  readonly url: string;
  readonly connectionsMax: number;
  /** Callers that may wait for a session; further ones are refused. Default 1,000. */
  readonly waitersMax?: number;
  /** Default 1,000. */
  readonly connectTimeoutMs?: number;
  /** After this time a statement fails and its session is closed. Must exceed the lock wait. Default 5,000. */
  readonly statementTimeoutMs?: number;
  /** Default: {@link serviceIdleLimits}. */
  readonly idleLimits?: IdleLimits;
  /** Default 3. */
  readonly lockWaitSeconds?: number;
}

const settingsTimeoutMs = 5_000;
const closeTimeoutMs = 2_000;
const idleCheckIntervalMs = 1_000;

/** A session that was configured, and for how long it may be idle. */
interface Known {
  readonly session: Session;
  readonly idleMaxMs: number;
  /** Undefined while it is in use. */
  idleSince: Instant | undefined;
}

/** Opens a pool. Connects on first use. */
export function openSessions(options: SessionOptions): SessionPool {
  const pool = openPool(options);
  const settings = sessionSettings(options);
  const timeoutMs = options.statementTimeoutMs ?? 5_000;
  const known = new Map<PoolConnection, Known>();
  const usage = { acquired: 0, waited: 0 };
  pool.on("enqueue", () => usage.waited++);

  const sessionOn = (connection: PoolConnection): Session => ({
    query: (sql, values) => runLimited(connection, timeoutMs, sql, values),
    giveBack(isUsable) {
      const state = known.get(connection);
      if (isUsable && state !== undefined) {
        state.idleSince = now();
        connection.release();
      } else {
        known.delete(connection);
        closeNow(connection);
      }
    },
  });

  const start = async (connection: PoolConnection): Promise<Session> => {
    // Errors reach the caller of the statement that fails. One on an idle connection ends that connection only.
    connection.on("error", () => known.delete(connection));
    connection.on("end", () => known.delete(connection));
    try {
      const idleMaxMs = await configure(connection, settings, Math.min(timeoutMs, settingsTimeoutMs));
      const session = sessionOn(connection);
      known.set(connection, { session, idleMaxMs, idleSince: undefined });
      return session;
    } catch (error) {
      closeNow(connection);
      throw error;
    }
  };

  const closeIdle = (connection: PoolConnection) => {
    known.delete(connection);
    connection.end();
  };
  const idleCheck = setInterval(() => {
    for (const [connection, state] of known) if (isIdleForTooLong(state)) closeIdle(connection);
  }, idleCheckIntervalMs);
  idleCheck.unref();

  return {
    async acquire() {
      for (;;) {
        const connection = await nextConnection(pool);
        usage.acquired++;
        const state = known.get(connection);
        if (state === undefined) return await start(connection);
        if (isIdleForTooLong(state)) {
          // This process stood still: the server has closed the session, or is about to.
          closeIdle(connection);
          continue;
        }
        state.idleSince = undefined;
        return state.session;
      }
    },
    usage: () => ({ ...usage }),
    async close() {
      clearInterval(idleCheck);
      if (await endsInTime(pool)) return;
      for (const connection of known.keys()) closeNow(connection);
    },
  };
}

function openPool(options: SessionOptions): Pool {
  return createPool({
    uri: options.url,
    connectionLimit: options.connectionsMax,
    queueLimit: options.waitersMax ?? 1_000,
    connectTimeout: options.connectTimeoutMs ?? 1_000,
    timezone: "Z",
    // The schemas' collation: with another one, comparing a literal to a column would bypass the column's index.
    charset: "UTF8MB4_BIN",
    supportBigNumbers: true,
    maxPreparedStatements: 100,
    enableKeepAlive: true,
    // Needed to send several statements in one packet. Values are always escaped, never pasted into the SQL.
    multipleStatements: true,
    // Idle connections take leave of the server, which would count them as aborted otherwise.
    gracefulEnd: true,
  });
}

/** Takes leave of the server on every connection. Returns false if a connection still waits for an answer. */
function endsInTime(pool: Pool): Promise<boolean> {
  const ended = new Promise<void>((resolve, reject) => {
    pool.end((error) => (error ? reject(error) : resolve()));
  });
  return endsWithin(ended, closeTimeoutMs);
}

function nextConnection(pool: Pool): Promise<PoolConnection> {
  return new Promise((resolve, reject) => {
    pool.getConnection((error, connection) => (error ? reject(error) : resolve(connection)));
  });
}

/** Half of the server's limit: a session must not end while a statement is on its way to it. */
const idleShare = 0.5;

function isIdleForTooLong({ idleSince, idleMaxMs }: Known): boolean {
  return idleSince !== undefined && elapsedMs(idleSince) >= idleMaxMs;
}

/** Cut off without a farewell: a server that does not answer would not answer that either. Statements under way fail. */
function closeNow(connection: PoolConnection): void {
  connection.destroy();
  const error = Object.assign(new Error("The session was closed."), { code: "SESSION_CLOSED", fatal: true });
  (connection as unknown as { readonly stream?: { destroy(error: Error): void } }).stream?.destroy(error);
}

/**
 * Sends one packet, with a time limit that begins now. The driver's own limit begins when the statements before it on the
 * connection have been answered, so one behind a statement without an answer would wait for ever.
 * @throws StatementTimeoutError after `timeoutMs`; the connection is closed then.
 */
function runLimited(
  connection: PoolConnection,
  timeoutMs: number,
  sql: string,
  values: readonly unknown[],
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isAnswered = false;
    // With a callback: the driver's promises capture a stack trace per statement, a tenth of a busy process's CPU.
    connection.query({ sql, values: values as unknown[] }, (error: Error | null, result: unknown) => {
      isAnswered = true;
      clearTimeout(timer);
      if (isRowCheckError(error)) reject(new RowsChangedError("Rows changed after they were read.", { cause: error }));
      else if (error) reject(error);
      else resolve(result);
    });
    if (isAnswered) return;
    timer = setTimeout(() => {
      reject(new StatementTimeoutError(timeoutMs));
      closeNow(connection);
    }, timeoutMs);
  });
}

/** Strict, so that no value is cut off or bent; and backslashes escape, because the driver escapes values with them. */
const requiredModes = ["STRICT_TRANS_TABLES", "ERROR_FOR_DIVISION_BY_ZERO", "NO_ENGINE_SUBSTITUTION"];
/** In these modes, values that the driver escapes could end their literal: an injection. */
const unsafeModes = ["NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"];

/** The settings, and the question which of them the server has taken, as one packet. */
function sessionSettings({ idleLimits = serviceIdleLimits, lockWaitSeconds = 3 }: SessionOptions): string {
  const { inTransactionSeconds, sessionSeconds } = idleLimits;
  return [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    // For MySQL, /*M! begins a comment.
    `SET SESSION time_zone = '+00:00', sql_mode = '${requiredModes.join()}',
       innodb_lock_wait_timeout = ${lockWaitSeconds}, wait_timeout = ${inTransactionSeconds}
       /*M! , idle_transaction_timeout = ${inTransactionSeconds}, wait_timeout = ${sessionSeconds} */`,
    "SELECT @@SESSION.sql_mode AS sqlMode, @@SESSION.wait_timeout AS waitTimeoutSeconds",
  ].join("; ");
}

/**
 * Configures a new session. Returns for how long it may be idle in the pool.
 * @throws SessionRefusedError if the server does not take the settings.
 */
async function configure(connection: PoolConnection, settings: string, timeoutMs: number): Promise<number> {
  let results: readonly Row[][];
  try {
    results = (await runLimited(connection, timeoutMs, settings, [])) as Row[][];
  } catch (error) {
    if (errorNumber(error) === undefined || isOutage(error)) throw error;
    throw new SessionRefusedError(`The server refuses the settings of the session: ${messageOf(error)}`);
  }
  const { sqlMode, waitTimeoutSeconds } = results.at(-1)?.[0] ?? {};
  const modes = String(sqlMode).split(",");
  const missing = requiredModes.filter((mode) => !modes.includes(mode));
  const unsafe = unsafeModes.filter((mode) => modes.includes(mode));
  if (missing.length + unsafe.length > 0) {
    throw new SessionRefusedError(
      `The session's sql_mode must have ${requiredModes.join()} and neither ${unsafeModes.join(" nor ")}, but the server keeps it at ${JSON.stringify(sqlMode)}. Statements would not be safe. Is there a proxy that does not pass on SET SESSION?`,
    );
  }
  return Number(waitTimeoutSeconds) * 1_000 * idleShare;
}
