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

const statementTimeoutMs = 2_000;
const releaseTimeoutMs = 500;
/** The server ends the connection of an owner that is silent for so many seconds. */
const serverWaitSeconds = 5;
/** What an owner may still have in flight when it hands over: a send of 2 s and its mark. Below the server's 5 s of silence. */
const handOverMaxMs = 3_000;
/** Between two sources that a process hands over. By then the first one is counted at its new owner. */
const spreadIntervalMs = 3_000;

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

/** The lock of a replica that waits for the source and owns `count` others. */
const waitingLockName = (lockName: string, count: number) => `${lockName}:${count}`;

/** A condition that is true if a replica that owns fewer than `count` sources waits, and the lock names that it takes. */
function isFewerWaiting(lockName: string, count: number) {
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
  /** The count in the name of the lock by which this replica waits. */
  #waitsWithCount: number | undefined;
  #standsBackUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: SourceLockOptions) {
    this.#options = options;
    this.#name = lockNameOf(options.schema, options.table);
  }

  /** Makes the server end the connection, and so release the lock, after 5 s of silence. */
  async limitSilence(): Promise<void> {
    const sql = `SET SESSION wait_timeout = ${serverWaitSeconds}`;
    await this.#options.connection.query({ sql, timeout: statementTimeoutMs });
  }

  /** Takes the lock, unless another replica has it, or one that owns fewer sources waits for it too. */
  async tryToOwn(): Promise<boolean> {
    const { count } = this.#options.ownedSources;
    if (this.#waitsWithCount !== count) {
      await this.#stopWaiting();
      // Unavailable if another replica with the same count waits; one of them represents both.
      const waits = await this.#ask("SELECT GET_LOCK(?, 0) AS answer", [waitingLockName(this.#name, count)]);
      if (waits?.answer === 1) this.#waitsWithCount = count;
    }
    if (performance.now() < this.#standsBackUntilMs) {
      await this.#ask("SELECT 1", []);
      return false;
    }
    const fewer = isFewerWaiting(this.#name, count);
    const row = await this.#ask(`SELECT CASE WHEN ${fewer.sql} THEN 0 ELSE GET_LOCK(?, 0) END AS answer`, [
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
    const fewer = isFewerWaiting(this.#name, this.#isSpreadSettled() ? ownedSources.count - 1 : 0);
    const row = await this.#ask(`SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer, ${fewer.sql} AS isWanted`, [
      this.#name,
      ...fewer.names,
    ]);
    if (row?.answer !== 1) throw new Error("The lock was lost, although its connection is open.");
    // Another source of this process may have been handed over while the answer was on its way.
    if (row.isWanted !== 1 || !this.#isSpreadSettled()) return true;
    log.info({ table, owned: ownedSources.count }, "handing the source over to a replica that owns fewer");
    await endsWithin(handOver(), handOverMaxMs);
    this.#standsBackUntilMs = performance.now() + spreadIntervalMs;
    await this.#ask("SELECT RELEASE_LOCK(?)", [this.#name]);
    return false;
  }

  /** Releases the lock, so that the next owner need not wait until the server notices. Never rejects. */
  async release(): Promise<void> {
    await this.#ask("SELECT RELEASE_LOCK(?)", [this.#name], releaseTimeoutMs).catch(() => undefined);
  }

  #isSpreadSettled(): boolean {
    return performance.now() - this.#options.ownedSources.changedAtMs >= spreadIntervalMs;
  }

  async #stopWaiting(): Promise<void> {
    if (this.#waitsWithCount === undefined) return;
    await this.#ask("SELECT RELEASE_LOCK(?)", [waitingLockName(this.#name, this.#waitsWithCount)]);
    this.#waitsWithCount = undefined;
  }

  async #ask(sql: string, names: readonly string[], timeout = statementTimeoutMs) {
    const [rows] = await this.#options.connection.query<RowDataPacket[]>({ sql, timeout }, [...names]);
    return rows[0];
  }
}
