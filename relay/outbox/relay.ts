/**
 * The relay of one source. It publishes committed events from the outbox to the topic, at least once and in order per key.
 *
 * Each pass reads pending rows in `seq` order, sends them, one send at a time, and marks what the broker has acknowledged.
 * These are the rules that make it correct. The other files of this folder refer to them.
 *
 * **Order.** Before a row is sent, every earlier row of its key has been acknowledged or discarded, or stands before it in
 * the same send. A service locks the aggregate's row before it appends, so one consistent read that shows a row also shows
 * the earlier rows of its key. Two reads do not: a transaction may commit between them. So every read selects by status and
 * begins with the first pending row, and only within one snapshot (a backlog) is the next page read after the last `seq`.
 *
 * **Unmarked rows** (acknowledged-rows.ts). Marks lag behind sends: in a backlog they run while the next page is sent, in
 * steady state while the next rows are read. Until they are marked, acknowledged rows are kept in memory. A steady-state
 * read finds them as pending and skips them. They are marked first where nothing would skip them: before the snapshot of a
 * backlog, before FAILED rows are read, and before a poison row becomes FAILED. After a failed pass, or with more than
 * `unmarkedRowsMax` of them, nothing is sent until they are marked. If the process dies first, they are sent again: at least
 * once.
 *
 * **Held keys** (held-keys.ts). A key is held while one of its rows cannot be sent: its later rows wait, other keys go on.
 * - A poison row becomes FAILED, and DEAD after its last attempt (poison-rows.ts). Before it becomes FAILED, the earlier
 *   rows of its key are sent and marked, because a FAILED or DEAD row holds its whole key: no pending row of it is sent.
 * - A schema-behind row stays PENDING. Earlier rows of its key that were read with it are still sent.
 * - A partition that refuses records while others accept them holds all of its keys (refused-partitions.ts).
 * - During a pass keys are only added to those held. If one were released between two of its rows, the second row would be
 *   sent first.
 *
 * **Retries.** A FAILED row is attempted again when it is due and no earlier row of its key is unpublished. During the
 * attempt it is PENDING, so that an operator cannot discard what is being sent. Even if the attempt succeeds, its key stays
 * held until the next pass.
 *
 * **Outages.** Any error that is not a row's own fault (faults.ts) counts against no row. If no partition accepts its rows,
 * it fails the pass. The next pass begins again with the first pending row, and sends a few rows as a probe.
 *
 * **Owners.** Only the source's owner sends. ownership.ts says what a former owner may still send, and why the order of
 * first occurrences holds all the same.
 */
import type { OutboxRow } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { AcknowledgedRows } from "./acknowledged-rows.ts";
import type { HeldKeys } from "./held-keys.ts";
import { type RelayMetrics, removeOwnerGauges } from "./metrics.ts";
import { type OwnedProducer, OwnershipLostError } from "./owned-producer.ts";
import type { Ownership } from "./ownership.ts";
import { PageSize, pageRowsMax } from "./page-size.ts";
import type { EncodedRow, Publisher } from "./publisher.ts";
import type { RefusedPartitions } from "./refused-partitions.ts";
import { outageBackoff } from "./retry-policy.ts";
import type { OutboxStore, PendingReader } from "./store.ts";
import { WakeUp } from "./wake-up.ts";

/**
 * How long a snapshot may last, counted only once something has been sent from it (see `#drain`). While it is open, late
 * commits are invisible, and InnoDB must keep the old versions of rows that change.
 */
const snapshotAgeMaxMs = 500;
/** With more unmarked rows, sending waits for marking. After a crash, at most these and one page are sent again. */
const unmarkedRowsMax = 2 * pageRowsMax;
/** Limits the FAILED rows of one pass, so that many of them cannot delay other keys for long. */
const dueRowsMax = 50;

interface Page {
  readonly read: readonly OutboxRow[];
  /** Those of `read` that are not held. */
  readonly rows: readonly EncodedRow[];
  /** Whether the read reached its limit: there may be more rows. */
  readonly isFull: boolean;
}

export interface SourceRelayOptions {
  readonly source: string;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  readonly store: OutboxStore;
  readonly ownership: Ownership;
  readonly producer: OwnedProducer;
  readonly acknowledged: AcknowledgedRows;
  readonly heldKeys: HeldKeys;
  readonly refusedPartitions: RefusedPartitions;
  readonly publisher: Publisher;
  readonly pollIntervalMs: number;
}

/** The loop over one source: passes while this process owns it, and waits in between. */
export class SourceRelay {
  readonly #options: SourceRelayOptions;
  readonly #labels: { readonly source: string };
  readonly #wakeUp = new WakeUp();
  readonly #pageSize = new PageSize();
  readonly #closing = new AbortController();
  /** The pass under way, or the last one. It never rejects. */
  #currentPass: Promise<unknown> = Promise.resolve();
  /** Passes that failed in a row. */
  #failedPasses = 0;

  constructor(options: SourceRelayOptions) {
    this.#options = options;
    this.#labels = { source: options.source };
    const { ownership, refusedPartitions, metrics } = options;
    refusedPartitions.onAccepted(() => this.#wakeUp.hint());
    ownership.onChange((isOwner) => this.#onOwnershipChange(isOwner));
    metrics.owner.set(this.#labels, ownership.isFresh() ? 1 : 0);
  }

  hint(): void {
    this.#wakeUp.hint();
  }

  isHealthy(): boolean {
    const { ownership, refusedPartitions } = this.#options;
    const delivers = this.#failedPasses === 0 && refusedPartitions.count === 0;
    // A pass may fail after the source was lost. Only an owner makes the passes that would show that all is well again.
    return ownership.isDatabaseReachable() && (delivers || !ownership.isFresh());
  }

  /** Makes {@link run} come to its end. */
  stop(): void {
    this.#closing.abort();
    this.#wakeUp.close();
  }

  async run(): Promise<void> {
    const { ownership, producer, acknowledged, heldKeys, refusedPartitions, pollIntervalMs, log } = this.#options;
    let isBacklog = false;
    while (!this.#closing.signal.aborted) {
      this.#wakeUp.reset();
      try {
        if (!ownership.isFresh()) {
          // A change of ownership ends the sleep. The time limit covers an owner whose pings were late: when one succeeds,
          // the owner may send again, although its ownership has not changed.
          await this.#wakeUp.sleep(pollIntervalMs);
          continue;
        }
        // Connects before the first event needs it.
        await producer.connect();
        const pass = this.#pass(isBacklog);
        this.#currentPass = pass.catch(() => undefined);
        isBacklog = await pass;
        if (!isBacklog) await this.#waitForWork();
      } catch (error) {
        isBacklog = false;
        heldKeys.reset();
        if (!(error instanceof OwnershipLostError)) await this.#backOff(error);
      }
    }
    await refusedPartitions.settled();
    await acknowledged
      .mark()
      .catch((error) => log.warn({ err: error, rows: acknowledged.count }, "rows not marked: they will be sent again"));
  }

  /**
   * One pass over the source. Returns true if the next pass should start at once: there are more rows, or the retry of a
   * FAILED row may have released some.
   */
  async #pass(isBacklog: boolean): Promise<boolean> {
    const { store, acknowledged, heldKeys, refusedPartitions } = this.#options;
    acknowledged.throwBackgroundFailure();
    // After an outage, or if marking falls behind, nothing more is sent before a mark has succeeded.
    if (this.#failedPasses > 0 || acknowledged.count > unmarkedRowsMax) await acknowledged.mark();
    refusedPartitions.refresh(performance.now());
    if (isBacklog) {
      const nowMs = performance.now();
      heldKeys.refresh(heldKeys.isReadDue(nowMs) ? await store.readHeldKeys() : undefined, nowMs);
      const retried = heldKeys.isRetryDue && (await this.#retryFailedRows());
      return (await this.#drain()) || retried;
    }
    // In steady state there are few rows: one round trip, no transaction.
    const { read, rows, isFull } = await this.#readFirstPage();
    // The page has no rows of the keys of FAILED rows. They stay held until the next pass, even if a retry succeeds now.
    const retried = heldKeys.isRetryDue && (await this.#retryFailedRows());
    await this.#publish(rows);
    // Only here, because a pass that follows a failed one always comes this way.
    this.#noteSuccess();
    this.#pageSize.growAfter(read);
    return (isFull && (await this.#drain())) || retried;
  }

  /** Reads the held keys and a first page in one round trip, while a mark that is due runs in the background. */
  async #readFirstPage(): Promise<Page> {
    const { store, acknowledged, heldKeys } = this.#options;
    // Acknowledged rows that are not marked yet may be read as pending again.
    const unmarked = new Set(acknowledged.ids);
    if (unmarked.size > 0 && !acknowledged.isMarkUnderWay && acknowledged.markDueInMs() === 0) {
      acknowledged.markInBackground();
    }
    const wanted = { exceptKeys: heldKeys.exceptKeys(), limit: this.#pageSize.rows + unmarked.size };
    const nowMs = performance.now();
    const read = heldKeys.isReadDue(nowMs)
      ? await store.readHeldKeysAndPending(wanted)
      : { heldKeys: undefined, rows: await store.readPending({ ...wanted, afterSeq: "0" }) };
    heldKeys.refresh(read.heldKeys, nowMs);
    const fresh = read.rows.filter(({ id }) => !unmarked.has(id));
    const page = fresh.slice(0, this.#pageSize.rows);
    return {
      read: page,
      rows: this.#encodeSendable(page),
      isFull: read.rows.length === wanted.limit || fresh.length >= this.#pageSize.rows,
    };
  }

  /** Attempts FAILED rows that are due, before the later rows of their keys. Returns true if any was passed to the broker. */
  async #retryFailedRows(): Promise<boolean> {
    const { store, acknowledged, heldKeys, publisher } = this.#options;
    // takeDue leaves out a row while an earlier row of its key is unpublished, so rows that were sent must be marked.
    await acknowledged.mark();
    const rows = await store.takeDue({ exceptKeys: heldKeys.exceptKeysOfRetry(), limit: dueRowsMax });
    heldKeys.beginRetry(rows);
    try {
      const sent = await publisher.publish(rows.map((row) => publisher.encode(row)));
      // The next read of the held keys must not find these rows FAILED.
      await acknowledged.mark();
      return sent;
    } finally {
      heldKeys.endRetry();
    }
  }

  /**
   * Publishes a backlog page by page from one snapshot. While a page is sent, the next one is read and encoded, and the one
   * before is marked. All are marked at the end, because the next snapshot must contain the marks. Returns true if there
   * are more rows.
   */
  async #drain(): Promise<boolean> {
    const { store, acknowledged } = this.#options;
    await acknowledged.mark();
    return await store.snapshot(async (reader) => {
      let page = await this.#readPage(reader, "0");
      // The time limit counts only once something was sent. A new snapshot begins again with the first pending row: if it
      // had to read many held rows first, it could spend all its time on them, and no snapshot would ever get past them.
      let endMs = Number.POSITIVE_INFINITY;
      for (;;) {
        const readsOn = page.isFull && !this.#closing.signal.aborted && performance.now() < endMs;
        const nextPage = readsOn ? this.#readPage(reader, page.lastSeq) : undefined;
        // If publishing fails, nothing awaits this read, and its error must not count as unhandled.
        nextPage?.catch(() => undefined);
        const sent = await this.#publish(page.rows);
        if (sent) endMs = Math.min(endMs, performance.now() + snapshotAgeMaxMs);
        this.#pageSize.growAfter(page.read);
        if (nextPage === undefined || acknowledged.count > unmarkedRowsMax) await acknowledged.mark();
        else acknowledged.markInBackground();
        if (nextPage === undefined) return page.isFull;
        page = await nextPage;
      }
    });
  }

  async #readPage(reader: PendingReader, afterSeq: string): Promise<Page & { readonly lastSeq: string }> {
    const limit = this.#pageSize.rows;
    const read = await reader.readPending({ afterSeq, exceptKeys: this.#options.heldKeys.exceptKeys(), limit });
    return {
      read,
      rows: this.#encodeSendable(read),
      isFull: read.length === limit,
      lastSeq: read.at(-1)?.seq ?? afterSeq,
    };
  }

  #encodeSendable(rows: readonly OutboxRow[]): readonly EncodedRow[] {
    const { heldKeys, publisher } = this.#options;
    return rows.filter((row) => !heldKeys.isHeld(row)).map((row) => publisher.encode(row));
  }

  /** Sends the rows of a page, after a start or an outage the first of them alone. Returns like {@link Publisher.publish}. */
  async #publish(rows: readonly EncodedRow[]): Promise<boolean> {
    const { publisher } = this.#options;
    const first = this.#pageSize.firstSendRows;
    const sent = await publisher.publish(rows.slice(0, first));
    if (sent) this.#pageSize.noteSent();
    return (await publisher.publish(rows.slice(first))) || sent;
  }

  #noteSuccess(): void {
    if (this.#failedPasses > 0)
      this.#options.log.info({ attempts: this.#failedPasses }, "recovered: the source is relayed again");
    this.#failedPasses = 0;
  }

  async #backOff(error: unknown): Promise<void> {
    const { acknowledged, metrics, log } = this.#options;
    this.#pageSize.reset();
    // The outage may be the broker's: then what it had acknowledged can still be marked.
    if (acknowledged.count > 0 && !acknowledged.isMarkUnderWay) acknowledged.markInBackground();
    metrics.failures.inc({ ...this.#labels, kind: "outage" });
    const attempts = this.#failedPasses + 1;
    // Logs attempts 1, 2, 4, 8 …, so that a long outage does not fill the log.
    if (Number.isInteger(Math.log2(attempts))) log.warn({ err: error, attempts }, "pass failed; will be retried");
    await sleep(fullJitterMs(this.#failedPasses++, outageBackoff), this.#closing.signal);
  }

  /**
   * Sleeps until a hint, or the next poll. Acknowledged rows are marked when they are due, unless a hint comes first: then
   * they are marked while the next rows are read.
   */
  async #waitForWork(): Promise<void> {
    const { acknowledged, pollIntervalMs } = this.#options;
    if (acknowledged.count > 0) {
      await this.#wakeUp.sleep(acknowledged.markDueInMs());
      if (this.#wakeUp.isHinted || this.#closing.signal.aborted) return;
      acknowledged.markInBackground();
    }
    await this.#wakeUp.sleep(pollIntervalMs);
  }

  /** Resolves when nothing of this source is in flight and what was sent is marked, or marking has failed. */
  async #onOwnershipChange(isOwner: boolean): Promise<void> {
    const { source, acknowledged, heldKeys, refusedPartitions, metrics } = this.#options;
    metrics.owner.set(this.#labels, isOwner ? 1 : 0);
    // Another owner may have changed which keys are held.
    heldKeys.expireRead();
    refusedPartitions.expire();
    this.#failedPasses = 0;
    if (!isOwner) removeOwnerGauges(metrics, source);
    this.#wakeUp.hint();
    await Promise.all([this.#currentPass, refusedPartitions.settled()]);
    await acknowledged.mark().catch(() => undefined);
  }

  /** Sets the gauges of rows, if this process owns the source. */
  async measure(): Promise<void> {
    const { ownership, store, heldKeys, metrics } = this.#options;
    if (!ownership.isFresh()) return;
    const { pendingRows, heldRows, oldestPendingAgeMs } = await store.measure(heldKeys.keysBehindRows());
    if (!ownership.isFresh()) return;
    metrics.pendingRows.set(this.#labels, pendingRows);
    metrics.heldRows.set(this.#labels, heldRows);
    metrics.oldestPendingAgeSeconds.set(this.#labels, oldestPendingAgeMs / 1_000);
  }
}
