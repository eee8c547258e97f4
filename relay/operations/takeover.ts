/**
 * Takes a source from its relay for a while by taking the relay's lock, so that what an operator's command sends does not
 * mix with what the relay sends.
 *
 * A relay does not release its lock on request. This module queues for the lock and then ends the connection that holds
 * it. The relay treats this like any lost connection: it stops sending, and continues once the lock is free again. The
 * times are those of outbox/ownership-times.ts. Unlike a relay, this module then waits 5 s, until everything that the previous
 * owner had in flight is over: a relay starts with the oldest pending rows, so that a late send brings only duplicates.
 */
import { createHash } from "node:crypto";
import { type Connection, createConnection, type RowDataPacket } from "mysql2/promise";
import { sleep } from "../../services/kit/backoff.ts";
import { errorNumber } from "../../services/kit/database-errors.ts";
import { DomainError } from "../../services/kit/errors.ts";
import { elapsedMs, now } from "../../services/kit/instant.ts";
import { freshForMs, pingIntervalMs, pingTimeoutMs, sendTimeoutMs, serverWaitMs } from "../outbox/ownership-times.ts";
import { lockNameOf } from "../outbox/source-lock.ts";
import { describeOwner, readOwner, type SourceOwner } from "./owner.ts";
import type { OperatedSource } from "./source.ts";

/** A source that was taken from its relay. */
export interface TakenSource {
  /** Call it right before each send. @throws Error if another process may hold the lock by now. */
  requireOwned(): void;
  /** Gives the source back to its relay. */
  release(): Promise<void>;
}

const lockWaitSeconds = 10;
/** The previous owner may consider itself the owner for `freshForMs` after its last ping, and then make one more send. */
const drainMs = freshForMs + sendTimeoutMs;
const connectTimeoutMs = 3_000;
const ownerCheckIntervalMs = 100;

/** The servers' errors for "you may not end another account's connection". */
const killDeniedErrors = [1095, 1227];
const noSuchConnectionError = 1094;

/**
 * Takes the source: within 10 s, or within 15 s if a relay owned it.
 * @param options.onWait receives a sentence for the operator: what takeSource is waiting for.
 * @throws DomainError FAILED_PRECONDITION if another operator's command has the source, or if this account may not end
 *   the relay's connection.
 */
export async function takeSource(
  source: OperatedSource,
  options: { readonly onWait: (what: string) => void },
): Promise<TakenSource> {
  const connection = await createConnection({
    uri: source.databaseUrl,
    connectTimeout: connectTimeoutMs,
    charset: "UTF8MB4_BIN",
  });
  let isLost = false;
  const onLost = () => {
    isLost = true;
  };
  connection.on("error", onLost);
  connection.on("end", onLost);
  try {
    // If this process is suspended, the server releases the lock.
    await queryAnswer(connection, `SET SESSION wait_timeout = ${serverWaitMs / 1_000}`);
    const operatorLock = operatorLockName(lockNameOf(source.schema, source.outboxTable));
    if ((await queryAnswer(connection, "SELECT GET_LOCK(?, 0) AS answer", operatorLock)) !== 1) {
      throw new DomainError("FAILED_PRECONDITION", `Another operator's command has taken the source ${source.name}.`);
    }
    const hadOwner = await acquireLock(source, connection, options.onWait);
    const taken = keepHolding(source, connection, () => isLost);
    if (hadOwner) {
      options.onWait(`The relay has stopped. Waiting ${drainMs / 1_000} s for its last send to end.`);
      await sleep(drainMs);
    }
    return taken;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** A lock that admits one operator at a time: two would keep taking the source from each other. */
function operatorLockName(lockName: string): string {
  return `operator:${createHash("sha256").update(lockName).digest("hex").slice(0, 40)}`;
}

/** Runs a statement and returns the column `answer` of its first row. */
async function queryAnswer(
  connection: Connection,
  sql: string,
  lockName?: string,
  timeout = pingTimeoutMs,
): Promise<unknown> {
  const [rows] = await connection.query<RowDataPacket[]>({ sql, timeout }, [lockName]);
  return Array.isArray(rows) ? rows[0]?.answer : undefined;
}

/** Acquires the relay's lock, ending each connection that holds it. Returns whether there was one. */
async function acquireLock(
  source: OperatedSource,
  connection: Connection,
  onWait: (what: string) => void,
): Promise<boolean> {
  const lockName = lockNameOf(source.schema, source.outboxTable);
  // Queue for the lock before ending its owner. Relays only poll for it, so this connection gets it next.
  let acquired: unknown;
  const queued = queryAnswer(
    connection,
    `SELECT GET_LOCK(?, ${lockWaitSeconds}) AS answer`,
    lockName,
    (lockWaitSeconds + 2) * 1_000,
  ).then((answer) => {
    acquired = answer;
  });
  queued.catch(() => undefined);
  const endedConnections = new Set<number>();
  while (acquired === undefined) {
    const owner = await readOwner(source);
    if (owner !== null && owner.connectionId !== connection.threadId && !endedConnections.has(owner.connectionId)) {
      endedConnections.add(owner.connectionId);
      onWait(`Taking the source ${source.name} from ${describeOwner(owner)} …`);
      await endConnection(source, owner);
    }
    await Promise.race([queued, sleep(ownerCheckIntervalMs)]);
  }
  if (acquired === 1) return endedConnections.size > 0;
  throw new DomainError(
    "FAILED_PRECONDITION",
    `The source ${source.name} could not be taken within ${lockWaitSeconds} s.`,
  );
}

/** @throws DomainError FAILED_PRECONDITION if this account may not. Waiting would not help: a relay keeps its lock. */
async function endConnection(source: OperatedSource, owner: SourceOwner): Promise<void> {
  try {
    await source.database.execute("KILL CONNECTION ?", [owner.connectionId]);
  } catch (error) {
    const number = errorNumber(error) ?? 0;
    if (number === noSuchConnectionError) return;
    if (!killDeniedErrors.includes(number)) throw error;
    throw new DomainError(
      "FAILED_PRECONDITION",
      `The source ${source.name} is owned by ${describeOwner(owner)}, and this account may not end that connection. Use the relay's own account, or one with CONNECTION ADMIN (MariaDB) or CONNECTION_ADMIN (MySQL), or stop the relay meanwhile.`,
    );
  }
}

/**
 * Keeps the connection alive and checks the lock, once a second. Unlike a relay's claim (outbox/ownership.ts) it neither
 * connects again nor hands over: if the lock is lost, the command fails.
 */
function keepHolding(source: OperatedSource, connection: Connection, isLost: () => boolean): TakenSource {
  const lockName = lockNameOf(source.schema, source.outboxTable);
  const releasing = new AbortController();
  let lastPing = now();
  let failure: unknown;
  const pinging = (async () => {
    while (!releasing.signal.aborted) {
      const started = now();
      const holds = await queryAnswer(connection, "SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer", lockName);
      if (holds !== 1) throw new Error("The lock was lost, although its connection is open.");
      lastPing = started;
      await sleep(pingIntervalMs - elapsedMs(started), releasing.signal);
    }
  })().catch((error: unknown) => {
    failure = error;
  });
  return {
    requireOwned() {
      if (isLost() || failure !== undefined || elapsedMs(lastPing) >= freshForMs) {
        throw new Error(`The lock on the source ${source.name} was lost.`, { cause: failure });
      }
    },
    async release() {
      releasing.abort();
      await pinging;
      if (!isLost()) await queryAnswer(connection, "SELECT RELEASE_LOCK(?) AS answer", lockName).catch(() => undefined);
      connection.destroy();
    },
  };
}
