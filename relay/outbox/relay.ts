/**
 * The relay of one source. It publishes committed events from the outbox to the topic, at least once and in order per key.
 *
 * Each pass reads pending rows in `seq` order, sends them, and marks what the broker has acknowledged. Rows are selected by
 * status; the relay reads on from a `seq` only within one snapshot. So an event whose transaction commits late is neither
 * skipped nor overtaken by a later event of its key.
 *
 * One send is in flight at a time. Marks may lag behind it by some batches: in a backlog they run while the next rows are
 * sent, in steady state while the next rows are read. Acknowledged rows that are not marked yet are known here. They are
 * marked before a backlog is read, and skipped in any other read. If the process dies first, they are sent again: at least
 * once.
 *
 * A key is held while one of its rows cannot be sent: its later rows wait, other keys go on. A poison row becomes FAILED
 * and is attempted again later, and becomes DEAD after its last attempt. A partition that refuses records holds all of its
 * keys. An outage counts against no row.
 */
import type { Registry } from "@bufbuild/protobuf";
import type { Encoding, OutboxRow } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import { every } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { RecordProducer } from "../kafka/producer.ts";
import { AcknowledgedRows } from "./acknowledged-rows.ts";
import { HeldKeys } from "./held-keys.ts";
import { type RelayMetrics, removeOwnerGauges } from "./metrics.ts";
import { OwnedProducer, OwnershipLostError } from "./owned-producer.ts";
import type { Ownership } from "./ownership.ts";
import { PageSize, pageRowsMax } from "./page-size.ts";
import { PoisonRows } from "./poison-rows.ts";
import { type EncodedRow, Publisher } from "./publisher.ts";
import { RefusedPartitions } from "./refused-partitions.ts";
import {
  attemptsMaxDefault,
  outageBackoff,
  type RetryBackoff,
  retryBackoffDefault,
  schemaBehindHoldMs,
} from "./retry-policy.ts";
import type { OutboxStore, PendingReader } from "./store.ts";
import { WakeUp } from "./wake-up.ts";

export interface RelaySourceOptions {
  /** In logs and metrics. */
  readonly name: string;
  readonly topic: string;
  /** Where dead letters go. Default: the topic's name and `.dlq`. */
  readonly deadLetterTopic?: string;
  /** CloudEvents source. */
  readonly ceSource: string;
  readonly encoding: Encoding;
  readonly registry: Registry;
  readonly store: OutboxStore;
  readonly ownership: Ownership;
  /** Connects a producer whose sends end within 2 s. ownership.ts says why. */
  readonly openProducer: () => Promise<RecordProducer>;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  /**
   * How long an idle source sleeps without a hint, and so the delay of an event whose hint is lost. Default 600: each poll
   * is 2 statements, which makes 4.5 a second on the server with the owner's pings and the gauges.
   */
  readonly pollIntervalMs?: number;
  /** How long a row is left alone whose schema is newer than the relay's. Default: see retry-policy.ts. */
  readonly holdMs?: number;
  /** Attempts at a poison row before it is DEAD. Default: see retry-policy.ts. */
  readonly attemptsMax?: number;
  /** Waits between the attempts at a poison row. Default: see retry-policy.ts. */
  readonly retryBackoff?: RetryBackoff;
  /** How often the gauges of rows are measured. Default 5,000: one statement each time. */
  readonly measureIntervalMs?: number;
}

/** A running source. It survives every outage of its database and of the broker. */
export interface RelaySource {
  /** Something was committed: read now, not at the next poll. */
  hint(): void;
  /** False while the database does not answer, or if this process owns the source and cannot deliver all of it. */
  isHealthy(): boolean;
  /** Finishes the send in flight, marks it, and releases the source. Closes producer, ownership and store. */
  close(): Promise<void>;
}

/** How old a snapshot may get. A late commit waits for the next one, and so does the purge of marked rows. */
const snapshotAgeMaxMs = 500;
/** With more unmarked rows, sending waits for marking. A crash sends at most these and one page again. */
const unmarkedRowsMax = 2 * pageRowsMax;
/** Limits the FAILED rows of one pass, so that many of them cannot delay other keys for long. */
const dueRowsMax = 50;
const pollIntervalDefaultMs = 600;
const measureIntervalDefaultMs = 5_000;

interface Page {
  readonly read: readonly OutboxRow[];
  /** Those of `read` that are not held. */
  readonly rows: readonly EncodedRow[];
  /** Whether the read reached its limit: there may be more rows. */
  readonly isFull: boolean;
}

/** Starts to relay one source, as soon as this process owns it. */
export function startRelaySource(options: RelaySourceOptions): RelaySource {
  const { name: source, topic, ceSource, store, ownership, metrics } = options;
  const log = options.log.child({ source });
  const pollIntervalMs = options.pollIntervalMs ?? pollIntervalDefaultMs;
  const common = { source, log, metrics };
  const producer = new OwnedProducer({ ...common, ownership, openProducer: options.openProducer });
  const acknowledged = new AcknowledgedRows({ ...common, store });
  const refusedPartitions = new RefusedPartitions(common);
  const heldKeys = new HeldKeys({
    ...{ ...common, refusedPartitions },
    readIntervalMs: pollIntervalMs,
    schemaBehindHoldMs: options.holdMs ?? schemaBehindHoldMs,
  });
  const poisonRows = new PoisonRows({
    ...{ ...common, ceSource, topic, store, acknowledged, producer },
    deadLetterTopic: options.deadLetterTopic ?? `${topic}.dlq`,
    attemptsMax: options.attemptsMax ?? attemptsMaxDefault,
    retryBackoff: options.retryBackoff ?? retryBackoffDefault,
  });
  const { encoding, registry } = options;
  const publisher = new Publisher({
    ...{ ...common, ceSource, topic, encoding, registry },
    ...{ producer, acknowledged, heldKeys, poisonRows, refusedPartitions },
  });
  const parts = { store, ownership, producer, acknowledged, heldKeys, refusedPartitions, publisher };
  const relay = new SourceRelay({ ...common, ...parts, pollIntervalMs });
  const running = relay.run();
  // Deliveries do not wait for it. Its errors are not logged: whatever causes them also fails a pass, which logs it.
  const measuring = every(
    options.measureIntervalMs ?? measureIntervalDefaultMs,
    () => relay.measure(),
    () => undefined,
  );
  return {
    hint: () => relay.hint(),
    isHealthy: () => relay.isHealthy(),
    async close() {
      relay.stop();
      await Promise.all([running, measuring.close()]);
      await Promise.allSettled([producer.close(), ownership.close(), store.close()]);
    },
  };
}

interface SourceRelayOptions {
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

class SourceRelay {
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
          // A gain of ownership ends the sleep. The time limit covers a gain between the check and the sleep.
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
      .catch((error) =>
        log.warn({ err: error, rows: acknowledged.count }, "rows not marked: they are sent again later"),
      );
  }

  /** One pass over the source. Returns true if it left a backlog, to go on with at once. */
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
    // The page has no rows of these keys. Even if a retry succeeds, they are held until the next pass.
    const retried = heldKeys.isRetryDue && (await this.#retryFailedRows());
    await this.#publish(rows);
    this.#noteSuccess();
    this.#pageSize.growAfter(read);
    return (isFull && (await this.#drain())) || retried;
  }

  /** Reads the held keys and a first page in one round trip, while a mark that is due runs in the background. */
  async #readFirstPage(): Promise<Page> {
    const { store, acknowledged, heldKeys } = this.#options;
    // Until they are marked, they may be read as pending again.
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

  /** Attempts FAILED rows that are due, before the later rows of their keys. Returns true if some were sent. */
  async #retryFailedRows(): Promise<boolean> {
    const { store, acknowledged, heldKeys, publisher } = this.#options;
    await acknowledged.mark();
    const rows = await store.takeDue({ exceptKeys: heldKeys.exceptKeysOfRetry(), limit: dueRowsMax });
    heldKeys.beginRetry(rows);
    try {
      const sent = await publisher.publish(rows.map((row) => publisher.encode(row)));
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
      // From the first send on. A new snapshot starts again at the first row, and would meet the same held rows. If they
      // take longer to read than a snapshot may last, no snapshot would ever get past them.
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
    if (this.#failedPasses > 0) this.#options.log.info({ attempts: this.#failedPasses }, "delivering again");
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
    if (Number.isInteger(Math.log2(attempts))) log.warn({ err: error, attempts }, "outage");
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
