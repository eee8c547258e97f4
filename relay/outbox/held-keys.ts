/**
 * The held keys of one source, by the rules in relay.ts.
 *
 * A key is held because its row is FAILED or DEAD, which the table says, or because its row's schema is newer than this
 * relay's, or because its partition refuses records (refused-partitions.ts): these two only this process knows. When a row
 * turns out to be poison, this process holds its key until the next read of the table shows the row as FAILED or DEAD.
 */
import type { OutboxRow } from "../../proto/envelope.ts";
import type { Logger } from "../../services/kit/log.ts";
import { type Fault, logFieldsOf } from "./faults.ts";
import type { RelayMetrics } from "./metrics.ts";
import type { RefusedPartitions } from "./refused-partitions.ts";
import type { StoredHeldKeys } from "./store.ts";

/** The most held keys that a statement filters out. Rows of further held keys are read and skipped. */
const exceptKeysMax = 1_000;
const loggedRowsMax = 10_000;

/** A key that this process holds, whatever the table says. */
interface KeyFoundHere {
  readonly fault: Fault;
  /** The row with the fault. Rows of the key before it are not held by this entry. */
  readonly fromSeq: bigint;
  /** Until then a schema-behind row is not attempted again. Infinite for a poison row: the table takes over. */
  readonly untilMs: number;
}

export interface HeldKeysOptions {
  readonly source: string;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  readonly refusedPartitions: RefusedPartitions;
  /** How old the last read of the table may get. */
  readonly readIntervalMs: number;
  /** How long a key with a schema-behind row is held before the row is attempted again. */
  readonly schemaBehindHoldMs: number;
}

export class HeldKeys {
  readonly #options: HeldKeysOptions;
  readonly #labels: { readonly source: string };
  #stored: StoredHeldKeys = { keys: new Set(), deadKeys: 0, isRetryDue: false };
  #storedReadMs = Number.NEGATIVE_INFINITY;
  readonly #foundHere = new Map<string, KeyFoundHere>();
  /** FAILED rows that are attempted again now, although their keys are held because of them. */
  #retriedRows: ReadonlySet<string> = new Set();
  /** Schema-behind rows that were logged and counted. Emptied when it is full; then its rows are logged and counted again. */
  readonly #loggedRows = new Set<string>();

  constructor(options: HeldKeysOptions) {
    this.#options = options;
    this.#labels = { source: options.source };
  }

  /** Whether a FAILED row is due for its next attempt. */
  get isRetryDue(): boolean {
    return this.#stored.isRetryDue;
  }

  isHeld({ id, aggregateId, seq }: OutboxRow): boolean {
    const found = this.#foundHere.get(aggregateId);
    if (found !== undefined && BigInt(seq) >= found.fromSeq) return true;
    if (this.#stored.keys.has(aggregateId) && !this.#retriedRows.has(id)) return true;
    return this.#options.refusedPartitions.holds(aggregateId);
  }

  /** The keys that a read of pending rows leaves out. */
  exceptKeys(): readonly string[] {
    const keys = [...this.#stored.keys, ...this.#foundHere.keys(), ...this.#options.refusedPartitions.keys()];
    return [...new Set(keys)].slice(0, exceptKeysMax);
  }

  /** The keys that wait behind one of their rows, not because of the broker. */
  keysBehindRows(): readonly string[] {
    return [...new Set([...this.#stored.keys, ...this.#foundHere.keys()])].slice(0, exceptKeysMax);
  }

  /** The keys that a read of FAILED rows leaves out: only those that this process holds, because FAILED rows hold the others. */
  exceptKeysOfRetry(): readonly string[] {
    return [...this.#foundHere.keys(), ...this.#options.refusedPartitions.keys()].slice(0, exceptKeysMax);
  }

  /** Holds the key of a row that has a fault, from this row on. */
  hold(row: OutboxRow, fault: Fault, error: unknown): void {
    const untilMs =
      fault === "poison" ? Number.POSITIVE_INFINITY : performance.now() + this.#options.schemaBehindHoldMs;
    this.#foundHere.set(row.aggregateId, { fault, fromSeq: BigInt(row.seq), untilMs });
    if (fault === "schema-behind") this.#logOnce(row, error);
  }

  /** Lets `rows`, which were FAILED, be sent until {@link endRetry}, although their keys are held because of them. */
  beginRetry(rows: readonly OutboxRow[]): void {
    this.#retriedRows = new Set(rows.map(({ id }) => id));
  }

  endRetry(): void {
    this.#retriedRows = new Set();
    this.expireRead();
  }

  /** Whether the table has to be read before the next pass. */
  isReadDue(nowMs: number): boolean {
    const isPoisonFound = this.#foundHere.values().some(({ fault }) => fault === "poison");
    return isPoisonFound || nowMs - this.#storedReadMs >= this.#options.readIntervalMs;
  }

  /**
   * Brings the held keys up to date between two passes. A key that an operator has released since the last read is noticed
   * at the next read. Until then its rows only wait longer.
   * @param stored what the table says; undefined if it was not read.
   * @param nowMs when the read began.
   */
  refresh(stored: StoredHeldKeys | undefined, nowMs: number): void {
    const { metrics } = this.#options;
    const found = [...this.#foundHere];
    metrics.schemaBehindKeys.set(this.#labels, found.filter(([, { fault }]) => fault === "schema-behind").length);
    if (stored !== undefined) {
      this.#stored = stored;
      this.#storedReadMs = nowMs;
      metrics.heldKeys.set({ ...this.#labels, status: "failed" }, stored.keys.size - stored.deadKeys);
      metrics.heldKeys.set({ ...this.#labels, status: "dead" }, stored.deadKeys);
    }
    for (const [key, { fault, untilMs }] of found) {
      // A poison row makes a read due, so `stored` has its key by now.
      if (fault === "poison" || untilMs <= nowMs) this.#foundHere.delete(key);
    }
  }

  /** Makes a read of the table due. */
  expireRead(): void {
    this.#storedReadMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * Forgets the keys that only this process holds, after a failed pass: earlier rows of these keys may not have been sent,
   * and would not be read while their key is held.
   */
  reset(): void {
    this.#foundHere.clear();
    this.expireRead();
  }

  /** Logs and counts a schema-behind row once, although it is attempted again and again. */
  #logOnce(row: OutboxRow, error: unknown): void {
    if (this.#loggedRows.has(row.id)) return;
    if (this.#loggedRows.size >= loggedRowsMax) this.#loggedRows.clear();
    this.#loggedRows.add(row.id);
    const { log, metrics } = this.#options;
    const kind = "schema-behind";
    metrics.failures.inc({ ...this.#labels, kind });
    log.error({ kind, ...logFieldsOf(row), err: error }, "key held until a relay with a newer schema starts");
  }
}
