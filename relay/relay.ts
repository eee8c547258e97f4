/**
 * The relay's loop over one source: committed events go from the outbox to the topic, at least once and in order per
 * key.
 *
 * A pass reads what is pending in `seq` order, sends, and marks what the broker has acknowledged. Rows are selected by
 * status. Only within one snapshot is read on from a `seq`, so that an event whose transaction commits late is neither
 * skipped nor overtaken by a later one of its key.
 *
 * A key is held while one of its rows cannot be sent: its later rows wait, its neighbours do not.
 */
import type { Registry } from "@bufbuild/protobuf";
import { type Encoding, type EventRecord, type OutboxRow, toRecord } from "../proto/envelope.ts";
import { fullJitterMs, sleep } from "../services/kit/backoff.ts";
import type { Logger } from "../services/kit/log.ts";
import { type FailureKind, kindOf } from "./failures.ts";
import type { RecordProducer } from "./kafka.ts";
import type { RelayMetrics } from "./metrics.ts";
import type { OutboxStore, PendingReader } from "./outbox-store.ts";
import type { Ownership } from "./ownership.ts";

export interface RelaySourceOptions {
  /** In logs and metrics. */
  readonly name: string;
  readonly topic: string;
  /** CloudEvents source. */
  readonly ceSource: string;
  readonly encoding: Encoding;
  readonly registry: Registry;
  readonly store: OutboxStore;
  readonly ownership: Ownership;
  /** Connects a producer whose sends end within 2 s: see ownership.ts for why. */
  readonly openProducer: () => Promise<RecordProducer>;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  /** How long an idle source sleeps when no hint comes. Default 600: 2 statements each time, and a ping every second. */
  readonly pollIntervalMs?: number;
  /** How long a row that cannot be sent is left alone. Default 10,000. */
  readonly holdMs?: number;
}

/** A running source. It outlives every outage of its database and of the broker. */
export interface RelaySource {
  /** Something was committed: look now, not at the next poll. */
  hint(): void;
  /** False while the database does not answer, or the last attempt to deliver failed. */
  isHealthy(): boolean;
  /** Finishes the send under way, marks it, and gives the source up. Closes producer, ownership and store. */
  close(): Promise<void>;
}

const pageRowsMax = 500;
/** After a start or an outage, this many rows are tried before anything bigger. */
const probeRows = 10;
/** What a page of average rows may hold in memory. */
const pageSizeMaxBytes = 4 * 1_024 * 1_024;
/** Below the usual `max.message.bytes` of 1 MiB, so that only a row that is too large by itself is refused. */
const sendSizeMaxBytes = 900_000;
/** What key and headers add to a record, roughly. */
const recordOverheadBytes = 600;
/** How old a snapshot may get: a late commit waits that long, and so does the purge of what was marked. */
const snapshotAgeMaxMs = 500;
/** Held keys that the database filters out; what is beyond is read and passed over. */
const exceptKeysMax = 1_000;
const backoffMs = { baseMs: 100, maxMs: 2_000 };
const toldRowsMax = 10_000;

interface Outgoing {
  readonly row: OutboxRow;
  readonly record: EventRecord;
}

/** Another process may own the source by now. Nothing is wrong; there is only nothing to send any more. */
class OwnershipLostError extends Error {
  override readonly name = "OwnershipLostError";
}

/** Starts relaying one source, as soon as it is owned. */
export function startRelaySource(options: RelaySourceOptions): RelaySource {
  const { name, store, ownership, metrics } = options;
  const log = options.log.child({ source: name });
  const pollIntervalMs = options.pollIntervalMs ?? 600;
  const holdMs = options.holdMs ?? 10_000;
  const closing = new AbortController();
  const labels = { source: name };

  let producer: RecordProducer | undefined;
  let pageRows = probeRows;
  let outages = 0;

  // Wake-ups.
  let hinted = false;
  let idle = new AbortController();
  const wake = () => {
    hinted = true;
    idle.abort();
  };
  const sleepUntilHinted = async (ms: number) => {
    idle = new AbortController();
    if (!hinted && !closing.signal.aborted) await sleep(ms, idle.signal);
  };

  // Held keys: those that the table says are frozen, and those found here. During a pass they only grow: a key that was
  // let go between two of its rows would send the second one first.
  let frozenKeys: ReadonlySet<string> = new Set();
  let frozenKeysReadMs = Number.NEGATIVE_INFINITY;
  const foundKeys = new Map<string, { readonly fromSeq: bigint; readonly untilMs: number }>();
  const toldRows = new Set<string>();
  const isHeld = ({ aggregateId, seq }: OutboxRow) => {
    const found = foundKeys.get(aggregateId);
    // What comes before the row that cannot be sent goes out.
    return frozenKeys.has(aggregateId) || (found !== undefined && BigInt(seq) >= found.fromSeq);
  };
  const heldKeys = () => [...new Set([...frozenKeys, ...foundKeys.keys()])];

  /** Before a pass. A frozen key that was let go since the last look is only noticed a little later: no harm is done. */
  const refreshHeldKeys = async () => {
    const nowMs = performance.now();
    if (nowMs - frozenKeysReadMs >= pollIntervalMs) {
      frozenKeys = await store.frozenKeys();
      frozenKeysReadMs = nowMs;
    }
    for (const [key, { untilMs }] of foundKeys) if (untilMs <= nowMs) foundKeys.delete(key);
    metrics.heldKeys.set(labels, heldKeys().length);
  };

  /**
   * Where a row ends that cannot be sent: its key is held, in memory, and the row tried again after a while. No status
   * changes here yet; counting a poison row's attempts, FAILED and DEAD belong here. Schema-behind never counts.
   */
  const hold = (row: OutboxRow, kind: Exclude<FailureKind, "outage">, error: unknown) => {
    foundKeys.set(row.aggregateId, { fromSeq: BigInt(row.seq), untilMs: performance.now() + holdMs });
    if (toldRows.has(row.id)) return;
    if (toldRows.size >= toldRowsMax) toldRows.clear();
    toldRows.add(row.id);
    metrics.failures.inc({ ...labels, kind });
    log.error({ kind, id: row.id, type: row.type, key: row.aggregateId, seq: row.seq, err: error }, "key held");
  };

  const send = async (batch: readonly Outgoing[]) => {
    producer ??= await options.openProducer();
    // Looked at last of all: what comes before may take its time.
    if (!ownership.isFresh()) throw new OwnershipLostError();
    try {
      await producer.send(
        options.topic,
        batch.map(({ record }) => record),
      );
    } catch (error) {
      // A request of it may still be under way.
      discardProducer();
      throw error;
    }
  };

  const discardProducer = () => {
    void producer?.close();
    producer = undefined;
  };

  /** Sends and marks. A batch that is refused as too large is halved until the row is found that is. */
  const publish = async (batch: readonly Outgoing[]): Promise<void> => {
    // The first half may have held a key that the second half has rows of.
    const sendable = batch.filter(({ row }) => !isHeld(row));
    const [first, ...others] = sendable;
    if (first === undefined) return;
    try {
      await send(sendable);
    } catch (error) {
      const kind = kindOf(error);
      if (kind === "outage") throw error;
      if (others.length === 0) return hold(first.row, kind, error);
      const middle = Math.ceil(sendable.length / 2);
      await publish(sendable.slice(0, middle));
      return await publish(sendable.slice(middle));
    }
    const acknowledgedMs = Date.now();
    const marked = await store.markPublished(sendable.map(({ row }) => row.id));
    metrics.published.inc(labels, marked);
    metrics.batchRows.observe(labels, sendable.length);
    for (const { row } of sendable) {
      const latencyMs = Math.max(0, acknowledgedMs - row.occurredAt.getTime());
      metrics.commitToPublishSeconds.observe(labels, latencyMs / 1_000);
    }
    if (marked < sendable.length) log.warn({ rows: sendable.length - marked }, "another relay had published these too");
  };

  /** Encodes a page and publishes it, in sends of a size that the broker takes. False where all rows are held. */
  const deliver = async (rows: readonly OutboxRow[]): Promise<boolean> => {
    let sent = false;
    let batch: Outgoing[] = [];
    let batchBytes = 0;
    for (const row of rows) {
      const outgoing = encode(row);
      if (outgoing === undefined) continue;
      const sizeBytes = outgoing.record.value.byteLength + recordOverheadBytes;
      if (batchBytes + sizeBytes > sendSizeMaxBytes && batch.length > 0) {
        await publish(batch);
        batch = [];
        batchBytes = 0;
      }
      batch.push(outgoing);
      batchBytes += sizeBytes;
      sent = true;
    }
    await publish(batch);
    return sent;
  };

  const encode = (row: OutboxRow): Outgoing | undefined => {
    if (isHeld(row)) return undefined;
    const { ceSource: source, encoding, registry } = options;
    try {
      return { row, record: toRecord(row, { source, encoding, registry }) };
    } catch (error) {
      const kind = kindOf(error);
      if (kind === "outage") throw error;
      hold(row, kind, error);
      return undefined;
    }
  };

  const read = async (reader: PendingReader, afterSeq: string) => {
    const limit = pageRows;
    const rows = await reader.readPending({ afterSeq, exceptKeys: heldKeys().slice(0, exceptKeysMax), limit });
    return { rows, isFull: rows.length === limit, lastSeq: rows.at(-1)?.seq ?? afterSeq };
  };

  /** A page went well: the next one may be as large as memory allows, going by this one. */
  const growPage = (rows: readonly OutboxRow[]) => {
    if (rows.length === 0) return;
    const averageBytes = rows.reduce((sum, { payload }) => sum + payload.length, 0) / rows.length;
    pageRows = Math.max(probeRows, Math.min(pageRowsMax, Math.floor(pageSizeMaxBytes / Math.max(1, averageBytes))));
  };

  /** One look at the source. True where it has left a pile behind, to go on with at once. */
  const pass = async (isPile: boolean): Promise<boolean> => {
    await refreshHeldKeys();
    if (isPile) return await drain();
    // Mostly there is little: one statement, no transaction.
    const { rows, isFull } = await read(store, "0");
    await deliver(rows);
    recovered();
    growPage(rows);
    return isFull && (await drain());
  };

  /** A pile: page by page from one snapshot, the next page read while the previous one is on its way. */
  const drain = () =>
    store.snapshot(async (reader) => {
      const endMs = performance.now() + snapshotAgeMaxMs;
      let page = await read(reader, "0");
      let sent = false;
      for (;;) {
        // Begun again before anything was sent, it would never get past a pile of held rows that takes longer to read.
        const goOn = page.isFull && !closing.signal.aborted && (!sent || performance.now() < endMs);
        const ahead = goOn ? read(reader, page.lastSeq) : undefined;
        // Where the delivery fails, nobody else will look at it.
        ahead?.catch(() => undefined);
        sent = (await deliver(page.rows)) || sent;
        growPage(page.rows);
        if (ahead === undefined) return page.isFull;
        page = await ahead;
      }
    });

  const recovered = () => {
    if (outages > 0) log.info({ attempts: outages }, "delivering again");
    outages = 0;
  };

  const backOff = async (error: unknown) => {
    pageRows = probeRows;
    metrics.failures.inc({ ...labels, kind: "outage" });
    // At 1, 2, 4, 8 … attempts: a long outage is no reason for a long log.
    if (Number.isInteger(Math.log2(outages + 1))) log.warn({ err: error, attempts: outages + 1 }, "outage");
    await sleep(fullJitterMs(outages++, backoffMs), closing.signal);
  };

  const run = async () => {
    let isPile = false;
    while (!closing.signal.aborted) {
      hinted = false;
      try {
        if (!ownership.isFresh()) {
          // A gain of ownership wakes it; the time limit is for a gain that came in between.
          await sleepUntilHinted(pollIntervalMs);
          continue;
        }
        // Connected before the first event needs it.
        producer ??= await options.openProducer();
        isPile = await pass(isPile);
        if (!isPile) await sleepUntilHinted(pollIntervalMs);
      } catch (error) {
        isPile = false;
        // A row that goes before a held one may not have been sent, and is not read while its key is held.
        foundKeys.clear();
        if (!(error instanceof OwnershipLostError)) await backOff(error);
      }
    }
  };

  ownership.onChange((owned) => {
    metrics.owner.set(labels, owned ? 1 : 0);
    // Whoever owned it in between may have frozen keys.
    frozenKeysReadMs = Number.NEGATIVE_INFINITY;
    if (!owned) outages = 0;
    wake();
  });
  metrics.owner.set(labels, ownership.isFresh() ? 1 : 0);
  const running = run();

  return {
    hint: wake,
    isHealthy: () => ownership.isDatabaseReachable() && outages === 0,
    async close() {
      closing.abort();
      idle.abort();
      await running;
      await Promise.allSettled([producer?.close(), ownership.close(), store.close()]);
    },
  };
}
