/**
 * The MySQL advisory lock by which one replica owns a source, and the second lock by which the others wait for it.
 *
 * A replica that waits holds a lock whose name says how many sources it owns. By these names an owner sees whether to hand
 * the source over, and replicas that wait see which of them owns fewest.
 */
import { createHash } from "node:crypto";
import type { Connection, RowDataPacket } from "mysql2/promise";
import { endsWithin } from "../../services/kit/deadline.ts";
import type { Logger } from "../../services/kit/log.ts";
import { handOverMaxMs, pingTimeoutMs, serverWaitMs, spreadIntervalMs } from "./ownership-times.ts";

const releaseTimeoutMs = 500;

/** How many sources this process owns. All claims of a process share one. */
export interface OwnedSources {
  count: number;
  /** When the count changed last. */
  changedAtMs: number;
}

/** For all sources of one process. */
export function createOwnedSources(): OwnedSources {
  return { count: 0, changedAtMs: Number.NEGATIVE_INFINITY };
}

/** The name of a table's lock. Lock names are server-wide and have at most 64 characters. */
export function lockNameOf(schema: string, table: string): string {
  return `relay:${createHash("sha256").update(`${schema}.${table}`).digest("hex").slice(0, 40)}`;
}

/** The lock by which a replica waits for the source while it owns `count` others. */
const waitingLockName = (lockName: string, count: number) => `${lockName}:${count}`;

/** An SQL condition, with its values: true if a replica that owns fewer than `count` sources waits for the lock. */
function fewerWaitingCondition(lockName: string, count: number) {
  const names = Array.from({ length: Math.max(0, count) }, (_, fewer) => waitingLockName(lockName, fewer));
  return { sql: ["FALSE", ...names.map(() => "IS_USED_LOCK(?) IS NOT NULL")].join(" OR "), names };
}

export interface SourceLockOptions {
  readonly connection: Connection;
  readonly schema: string;
  readonly table: string;
  readonly ownedSources: OwnedSources;
  readonly log: Logger;
}

/** A source's lock on one connection. The server releases it when the connection ends. */
export class SourceLock {
  readonly #options: SourceLockOptions;
  readonly #name: string;
  /** The count in the name of the waiting lock that this replica has. Undefined while it has none. */
  #waitingLockCount: number | undefined;
  /** After a handover, this replica does not compete for the source until then. */
  #yieldsUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: SourceLockOptions) {
    this.#options = options;
    this.#name = lockNameOf(options.schema, options.table);
  }

  /** Makes the server end the connection, and so release the lock, after 5 s of silence. */
  async setServerIdleTimeout(): Promise<void> {
    const sql = `SET SESSION wait_timeout = ${serverWaitMs / 1_000}`;
    await this.#options.connection.query({ sql, timeout: pingTimeoutMs });
  }

  /** Takes the lock, unless another replica has it, or one that owns fewer sources waits for it too. */
  async tryToOwn(): Promise<boolean> {
    const { count } = this.#options.ownedSources;
    if (this.#waitingLockCount !== count) {
      await this.#stopWaiting();
      // Another replica with the same count may have this lock already. Then it stands for both.
      const waits = await this.#query("SELECT GET_LOCK(?, 0) AS answer", [waitingLockName(this.#name, count)]);
      if (waits?.answer === 1) this.#waitingLockCount = count;
    }
    if (performance.now() < this.#yieldsUntilMs) {
      // Only a ping: it keeps the connection open and shows that the database answers.
      await this.#query("SELECT 1", []);
      return false;
    }
    const fewer = fewerWaitingCondition(this.#name, count);
    const row = await this.#query(`SELECT CASE WHEN ${fewer.sql} THEN 0 ELSE GET_LOCK(?, 0) END AS answer`, [
      ...fewer.names,
      this.#name,
    ]);
    if (row?.answer !== 1) return false;
    await this.#stopWaiting();
    return true;
  }

  /**
   * Checks that the lock is still held. Hands it over if a replica waits that owns fewer sources by two or more. Returns
   * whether this replica still owns it.
   * @param handOver called before the lock is released; resolves when nothing of the source is in flight.
   */
  async keep(handOver: () => Promise<unknown>): Promise<boolean> {
    const { ownedSources, table, log } = this.#options;
    // Fewer by two or more: with one, a handover would only swap the counts. For a count of 0 the condition is false.
    const fewer = fewerWaitingCondition(this.#name, this.#isSpreadSettled() ? ownedSources.count - 1 : 0);
    const row = await this.#query(`SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer, ${fewer.sql} AS isWanted`, [
      this.#name,
      ...fewer.names,
    ]);
    if (row?.answer !== 1) throw new Error("The lock was lost, although its connection is open.");
    // Another source of this process may have been handed over while the answer was on its way.
    if (row.isWanted !== 1 || !this.#isSpreadSettled()) return true;
    log.info({ table, owned: ownedSources.count }, "handing the source over to a replica that owns fewer");
    await endsWithin(handOver(), handOverMaxMs);
    this.#yieldsUntilMs = performance.now() + spreadIntervalMs;
    await this.#query("SELECT RELEASE_LOCK(?)", [this.#name]);
    return false;
  }

  /** Releases the lock, so that the next owner need not wait until the server notices. Never rejects. */
  async release(): Promise<void> {
    await this.#query("SELECT RELEASE_LOCK(?)", [this.#name], releaseTimeoutMs).catch(() => undefined);
  }

  #isSpreadSettled(): boolean {
    return performance.now() - this.#options.ownedSources.changedAtMs >= spreadIntervalMs;
  }

  async #stopWaiting(): Promise<void> {
    if (this.#waitingLockCount === undefined) return;
    await this.#query("SELECT RELEASE_LOCK(?)", [waitingLockName(this.#name, this.#waitingLockCount)]);
    this.#waitingLockCount = undefined;
  }

  async #query(sql: string, names: readonly string[], timeout = pingTimeoutMs) {
    const [rows] = await this.#options.connection.query<RowDataPacket[]>({ sql, timeout }, [...names]);
    return rows[0];
  }
}
