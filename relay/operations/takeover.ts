/**
 * Takes a source from its relay for a while, by the relay's own lock: what an operator sends meanwhile is not mixed with
 * what the relay sends.
 *
 * A relay never lets go of a lock by itself. So this waits in line for it and ends the connection that holds it, which
 * the relay sees as one of its ordinary losses: it stops sending, and goes on once the lock is free again. As between two
 * relays (ownership.ts), what the previous owner had under way is over 5 s later, and the lock counts only while a ping
 * succeeded within the last 3 s.
 */
import { createHash } from "node:crypto";
import { type Connection, createConnection, type RowDataPacket } from "mysql2/promise";
import { sleep } from "../../services/kit/backoff.ts";
import { errorNumber } from "../../services/kit/database-errors.ts";
import { DomainError } from "../../services/kit/errors.ts";
import { lockNameOf } from "../outbox/ownership.ts";
import type { OperatedSource } from "./audit-log.ts";
import { describeOwner, readOwner, type SourceOwner } from "./undelivered.ts";

/** A source that is ours until released. */
export interface HeldSource {
  /** Asked right before each send. @throws Error when the lock may be somebody else's by now. */
  requireHeld(): void;
  /** Gives the source back to its relay. */
  release(): Promise<void>;
}

const waitSeconds = 10;
const pingIntervalMs = 1_000;
const freshForMs = 3_000;
const serverWaitSeconds = 5;
/** The owner's 3 s of freshness and the 2 s that a send may take. */
const drainMs = 5_000;
const statementTimeoutMs = 2_000;
const connectTimeoutMs = 3_000;
const lookIntervalMs = 100;

/** "You need the right to end somebody else's connection", as the servers say it; 1094 is "no such connection any more". */
const killDenied = [1095, 1227];
const noSuchConnection = 1094;

/**
 * Takes the source, within 10 s, and 5 s more where a relay had it.
 * @param options.onWait is told what it waits for.
 * @throws DomainError FAILED_PRECONDITION when another operator has it, or the relay's connection may not be ended.
 */
export async function takeSource(
  source: OperatedSource,
  options: { readonly onWait: (what: string) => void },
): Promise<HeldSource> {
  const connection = await createConnection({
    uri: source.databaseUrl,
    connectTimeout: connectTimeoutMs,
    charset: "UTF8MB4_BIN",
  });
  let isLost = false;
  const lose = () => {
    isLost = true;
  };
  connection.on("error", lose);
  connection.on("end", lose);
  try {
    // Should this process freeze, the server gives the source back.
    await ask(connection, `SET SESSION wait_timeout = ${serverWaitSeconds}`);
    const operators = operatorLockName(lockNameOf(source.schema, source.outboxTable));
    if ((await ask(connection, "SELECT GET_LOCK(?, 0) AS answer", operators)) !== 1) {
      throw new DomainError("FAILED_PRECONDITION", `Another operator's command holds the source ${source.name}.`);
    }
    const previous = await waitInLine(source, connection, options.onWait);
    const held = keepHolding(source, connection, () => isLost);
    if (previous) {
      options.onWait(`The relay has stopped; what it had under way is over in ${drainMs / 1_000} s.`);
      await sleep(drainMs);
    }
    return held;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** One operator at a time, who would otherwise take the source from each other. */
function operatorLockName(lockName: string): string {
  return `operator:${createHash("sha256").update(lockName).digest("hex").slice(0, 40)}`;
}

async function ask(
  connection: Connection,
  sql: string,
  lockName?: string,
  timeout = statementTimeoutMs,
): Promise<unknown> {
  const [rows] = await connection.query<RowDataPacket[]>({ sql, timeout }, [lockName]);
  return Array.isArray(rows) ? rows[0]?.answer : undefined;
}

/** Gets the lock. True where somebody else had it. */
async function waitInLine(
  source: OperatedSource,
  connection: Connection,
  onWait: (what: string) => void,
): Promise<boolean> {
  const lockName = lockNameOf(source.schema, source.outboxTable);
  const own = connection.threadId;
  // In line before anybody is ended: relays do not wait in line, so the lock comes here next.
  let acquired: unknown;
  const inLine = ask(connection, `SELECT GET_LOCK(?, ${waitSeconds}) AS answer`, lockName, (waitSeconds + 2) * 1_000);
  const ended = inLine.then((answer) => {
    acquired = answer;
  });
  ended.catch(() => undefined);
  const asked = new Set<number>();
  while (acquired === undefined) {
    const owner = await readOwner(source);
    if (owner !== null && owner.connectionId !== own && !asked.has(owner.connectionId)) {
      asked.add(owner.connectionId);
      onWait(`Taking the source ${source.name} from ${describeOwner(owner)} …`);
      await endConnection(source, owner);
    }
    await Promise.race([ended, sleep(lookIntervalMs)]);
  }
  if (acquired === 1) return asked.size > 0;
  throw new DomainError("FAILED_PRECONDITION", `The source ${source.name} could not be taken within ${waitSeconds} s.`);
}

/** @throws DomainError when this account may not; waiting would be in vain, since a relay does not let go. */
async function endConnection(source: OperatedSource, owner: SourceOwner): Promise<void> {
  try {
    await source.database.execute("KILL CONNECTION ?", [owner.connectionId]);
  } catch (error) {
    const number = errorNumber(error) ?? 0;
    if (number === noSuchConnection) return;
    if (!killDenied.includes(number)) throw error;
    throw new DomainError(
      "FAILED_PRECONDITION",
      `The source ${source.name} is held by ${describeOwner(owner)}, and this account may not end that connection. Use the relay's own account, or one with CONNECTION ADMIN (MariaDB) or CONNECTION_ADMIN (MySQL), or stop the relay meanwhile.`,
    );
  }
}

function keepHolding(source: OperatedSource, connection: Connection, isLost: () => boolean): HeldSource {
  const lockName = lockNameOf(source.schema, source.outboxTable);
  const releasing = new AbortController();
  let answeredMs = clocksMs();
  let failure: unknown;
  const pinging = (async () => {
    while (!releasing.signal.aborted) {
      const startedMs = clocksMs();
      const holds = await ask(connection, "SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer", lockName);
      if (holds !== 1) throw new Error("The lock is gone, though its connection is not.");
      answeredMs = startedMs;
      await sleep(pingIntervalMs - elapsedMs(startedMs), releasing.signal);
    }
  })().catch((error: unknown) => {
    failure = error;
  });
  return {
    requireHeld() {
      if (isLost() || failure !== undefined || elapsedMs(answeredMs) >= freshForMs) {
        throw new Error(`The source ${source.name} is no longer held.`, { cause: failure });
      }
    },
    async release() {
      releasing.abort();
      await pinging;
      if (!isLost()) await ask(connection, "SELECT RELEASE_LOCK(?) AS answer", lockName).catch(() => undefined);
      connection.destroy();
    },
  };
}

const clocksMs = () => ({ monotonic: performance.now(), wall: Date.now() });

/** By the clock that says more: the monotonic one may stand still while a machine sleeps, the other one may be set. */
function elapsedMs(since: ReturnType<typeof clocksMs>): number {
  return Math.max(performance.now() - since.monotonic, Date.now() - since.wall);
}
