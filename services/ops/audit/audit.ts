/**
 * The auditor checks the promises on a running system, from the databases, the topic and the payment gateway's ledger. A
 * running system has no global snapshot. So an order that looks wrong is read again from all sources until two readings
 * agree, and is reported only if it still looks wrong then.
 */
import { sleep } from "../../kit/backoff.ts";
import type { OrderBooks } from "./books.ts";
import { endOfPage, findParking, type ParkingServices } from "./databases.ts";
import { findDoubledRequests, findMissingOrders } from "./promises/i1-orders-exist.ts";
import { checkStock } from "./promises/i2-stock-adds-up.ts";
import { checkOrder } from "./promises/promises.ts";
import { type AuditSources, BooksReader } from "./reader.ts";
import type { AuditReport } from "./report.ts";
import { Tally } from "./tally.ts";

export interface AuditOptions extends AuditSources {
  /**
   * I4 is broken by what is unfinished after this time. Default 600,000: twice the default time after which Order times out
   * an order.
   */
  readonly overdueAfterMs?: number;
  /** Orders that a client got an answer for: each must exist. */
  readonly acknowledged?: readonly string[];
  /** How many findings of each promise the report shows. It counts all of them. Default 20. */
  readonly findingsMax?: number;
  /** The time between two readings of an order that looks wrong. Default 2,000. */
  readonly rereadIntervalMs?: number;
  /** Ends the audit early, with an AbortError. */
  readonly signal?: AbortSignal;
}

const pageSize = 1_000;
const suspectsPageSize = 500;
/** At the default `rereadIntervalMs`, an order that keeps changing is followed for half a minute. */
const readingsMax = 15;

/** One audit. 100,000 orders take about half a minute and 400 MB, however often their events were delivered. */
export async function audit(options: AuditOptions): Promise<AuditReport> {
  const auditor = await openAuditor(options);
  try {
    return await auditor.run();
  } finally {
    await auditor.close();
  }
}

/** Starts reading the topic. @throws Error if no broker answers. */
export async function openAuditor(options: AuditOptions): Promise<Auditor> {
  return new Auditor(options, await BooksReader.open(options));
}

/** Remembers the topic and the ledger from one audit to the next. Close it in the end. */
export class Auditor {
  readonly #reader: BooksReader;
  readonly #acknowledged: readonly string[];
  readonly #overdueAfterMs: number;
  readonly #rereadIntervalMs: number;
  readonly #findingsMax: number;
  readonly #signal: AbortSignal | undefined;

  constructor(options: AuditOptions, reader: BooksReader) {
    this.#reader = reader;
    this.#acknowledged = options.acknowledged ?? [];
    this.#overdueAfterMs = options.overdueAfterMs ?? 600_000;
    this.#rereadIntervalMs = options.rereadIntervalMs ?? 2_000;
    this.#findingsMax = options.findingsMax ?? 20;
    this.#signal = options.signal;
  }

  /** @throws Error if a source cannot be read: then nothing is known. */
  async run(): Promise<AuditReport> {
    const startedAt = new Date();
    const tally = new Tally(this.#findingsMax);
    const parking = await findParking(this.#reader.databases);
    const suspects = await this.#checkEveryOrder(parking, tally);
    const unsettled = await this.#checkSuspectsAgain(suspects, parking, tally);
    await this.#checkRequests(tally);
    await this.#checkStock(tally);
    this.#signal?.throwIfAborted();
    const { records, duplicates } = this.#reader.topic.events.counts();
    return {
      ...tally.toReport(),
      startedAt: startedAt.toISOString(),
      tookMs: Date.now() - startedAt.getTime(),
      unsettled: unsettled.slice(0, this.#findingsMax),
      unsettledCount: unsettled.length,
      suspects: suspects.length,
      records,
      duplicateRecords: duplicates,
    };
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }

  /** Reads every order once, page by page. Returns the orders that look wrong. */
  async #checkEveryOrder(parking: ParkingServices, tally: Tally): Promise<readonly string[]> {
    const { databases, topic, ledger } = this.#reader;
    const suspects = new Set<string>();
    const seen = new Set<string>();
    const context = await this.#reader.readContext(this.#overdueAfterMs);
    await ledger.catchUp();
    for (let after: string | undefined = ""; after !== undefined; ) {
      this.#signal?.throwIfAborted();
      const upTo: string | undefined = await endOfPage(databases, after, pageSize);
      for (const books of await this.#reader.readBooks(parking, { after, upTo })) {
        seen.add(books.orderId);
        tally.count(books);
        const { findings, waitsFor } = checkOrder(books, context);
        if (findings.length > 0) suspects.add(books.orderId);
        if (waitsFor !== undefined) tally.addHindered(books.orderId, waitsFor);
      }
      after = upTo;
    }
    // An order that no database has.
    for (const orderIds of [topic.events.orderIds(), ledger.orderIds()]) {
      for (const orderId of orderIds) if (!seen.has(orderId)) suspects.add(orderId);
    }
    return [...suspects];
  }

  /** Reports the suspects that still look wrong at two equal readings. Returns those that never stopped changing. */
  async #checkSuspectsAgain(
    suspects: readonly string[],
    parking: ParkingServices,
    tally: Tally,
  ): Promise<readonly string[]> {
    let waiting = suspects;
    let previous = new Map<string, string>();
    for (let reading = 1; waiting.length > 0 && reading <= readingsMax; reading++) {
      if (reading > 1) await sleep(this.#rereadIntervalMs, this.#signal);
      const context = await this.#reader.readContext(this.#overdueAfterMs);
      const current = new Map<string, string>();
      for (let first = 0; first < waiting.length; first += suspectsPageSize) {
        this.#signal?.throwIfAborted();
        const orderIds = waiting.slice(first, first + suspectsPageSize);
        for (const books of await this.#reader.readBooks(parking, { orderIds })) {
          const { findings } = checkOrder(books, context);
          if (findings.length === 0) continue;
          const fingerprint = fingerprintOf(books);
          if (previous.get(books.orderId) === fingerprint) tally.addFindings(findings);
          else current.set(books.orderId, fingerprint);
        }
      }
      waiting = [...current.keys()];
      previous = current;
    }
    return waiting;
  }

  async #checkRequests(tally: Tally): Promise<void> {
    const { databases } = this.#reader;
    tally.addFindings(await findMissingOrders(databases, this.#acknowledged));
    tally.addFindings(await findDoubledRequests(databases));
    tally.checked.I1 += this.#acknowledged.length;
  }

  /** Reports what is wrong with a SKU at two readings. */
  async #checkStock(tally: Tally): Promise<void> {
    const { databases } = this.#reader;
    const { checked, findings } = await checkStock(databases);
    tally.checked.I2 = checked;
    if (findings.length === 0) return;
    await sleep(this.#rereadIntervalMs, this.#signal);
    const again = await checkStock(databases);
    const confirmed = new Set(again.findings.map(({ subject, what }) => `${subject}: ${what}`));
    tally.addFindings(findings.filter(({ subject, what }) => confirmed.has(`${subject}: ${what}`)));
  }
}

/** These change at every attempt or reading, and say nothing about right or wrong. */
const volatileFields = new Set(["readAt", "attempts", "nextAttemptAt", "retryCount", "lastError"]);

function fingerprintOf(books: OrderBooks): string {
  return Bun.hash(JSON.stringify(books, (name, value) => (volatileFields.has(name) ? undefined : value))).toString(36);
}
