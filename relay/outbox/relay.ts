/**
 * The relay's loop over one source: committed events go from the outbox to the topic, at least once and in order per
 * key.
 *
 * A pass reads what is pending in `seq` order, sends, and marks what the broker has acknowledged. Rows are selected by
 * status. Only within one snapshot is read on from a `seq`, so that an event whose transaction commits late is neither
 * skipped nor overtaken by a later one of its key.
 *
 * One send at a time; marking may lag behind it by some batches: in a pile they are marked while the next ones are sent,
 * and in a trickle while the next ones are read. What is acknowledged and not marked yet is known here: it is marked before
 * a pile is read, and left out of what is read otherwise. Lost with the process, it is sent again: at least once.
 *
 * A key is held while one of its rows cannot be sent: its later rows wait, its neighbours do not. A poison row becomes
 * FAILED and is tried again later, and DEAD after its last attempt; an outage counts against no row.
 */
import type { Registry } from "@bufbuild/protobuf";
import { type Encoding, type EventRecord, type OutboxRow, toRecord } from "../../proto/envelope.ts";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import { describeError } from "../../services/kit/errors.ts";
import { every } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import { producerErrorOf } from "../kafka/errors.ts";
import type { RecordProducer } from "../kafka/producer.ts";
import { toDeadLetter } from "./dead-letter.ts";
import { type Fault, faultOf } from "./faults.ts";
import type { RelayMetrics } from "./metrics.ts";
import type { Ownership } from "./ownership.ts";
import type { OutboxStore, PendingReader, StoredHeldKeys } from "./store.ts";

export interface RelaySourceOptions {
  /** In logs and metrics. */
  readonly name: string;
  readonly topic: string;
  /** Where events go that were given up. Default: the topic's name and `.dlq`. */
  readonly deadLetterTopic?: string;
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
  /**
   * How long an idle source sleeps when no hint comes, and the delay of an event whose hint is lost. Default 600: 2
   * statements each time make, with the owner's pings and the gauges, 4.5 a second as the server counts them.
   */
  readonly pollIntervalMs?: number;
  /** How long a row that is newer than the schema is left alone. Default 10,000. */
  readonly holdMs?: number;
  /** How often a poison row is tried before it is dead. Default 10. */
  readonly attemptsMax?: number;
  /** How long a poison row is left alone: after its n-th attempt baseMs × 2ⁿ⁻¹, maxMs at the most. */
  readonly retryBackoff?: RetryBackoff;
  /** How often the gauges of rows are measured. Default 5,000: one statement each time. */
  readonly measureIntervalMs?: number;
}

/** Waiting times between the attempts at a poison row, by the database's clock. */
export interface RetryBackoff {
  /** Default 1,000. */
  readonly baseMs: number;
  /** Default 300,000. */
  readonly maxMs: number;
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

/** More make fuller requests and a larger heap; beyond these a drain is no faster. */
const pageRowsMax = 200;
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
const attemptsMaxDefault = 10;
const retryBackoffDefault: RetryBackoff = { baseMs: 1_000, maxMs: 300_000 };
/** Beyond these, marking holds up sending: a crash sends at most so many again, and a page. */
const unmarkedRowsMax = 2 * pageRowsMax;
/** In one pass, so that a pile of failed rows holds up nobody for long. */
const dueRowsMax = 50;
const toldRowsMax = 10_000;
/**
 * In a trickle, how long acknowledged rows wait to be marked, so that rows that are sent one by one are marked together.
 * A crash within that time sends so much more again.
 */
const markDelayMs = 40;

/** Why a key is held that was found here. */
interface FoundKey {
  /** What comes before the row that cannot be sent goes out. */
  readonly fromSeq: bigint;
  readonly kind: Fault;
  /** After that, the row of a schema-behind key is tried again. Whether a poison one is, the table says. */
  readonly untilMs: number;
}

interface Outgoing {
  readonly row: OutboxRow;
  readonly record: EventRecord;
}

/** A row that no record can be made of. */
interface Unencodable {
  readonly row: OutboxRow;
  readonly kind: Fault;
  readonly error: unknown;
}
type Encoded = Outgoing | Unencodable;

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
  const attemptsMax = options.attemptsMax ?? attemptsMaxDefault;
  const retryBackoff = options.retryBackoff ?? retryBackoffDefault;
  const deadLetterTopic = options.deadLetterTopic ?? `${options.topic}.dlq`;
  const closing = new AbortController();
  const labels = { source: name };

  let producer: RecordProducer | undefined;
  /** The last look at the source, under way or over; never rejects. */
  let looking: Promise<unknown> = Promise.resolve();
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

  // Marks. They are guarded by status and true whoever owns the source, so they need no ownership.
  /** Rows that the broker has acknowledged, and that are not marked yet: those of some pages. */
  let unmarked: readonly string[] = [];
  /** The last mark: the next one waits for it. Never rejects. */
  let marking: Promise<void> = Promise.resolve();
  /** A mark that nobody waited for has failed: the next pass has. */
  let failedMark: { readonly error: unknown } | undefined;
  /** Since when rows have been waiting to be marked. */
  let unmarkedSinceMs = 0;
  let marksUnderWay = 0;
  const markDueInMs = () => Math.max(0, unmarkedSinceMs + markDelayMs - performance.now());
  const noteMarked = (ids: readonly string[], marked: number, startedMs: number) => {
    // Acknowledged ones are only ever added at the end.
    unmarked = unmarked.slice(ids.length);
    unmarkedSinceMs = startedMs;
    metrics.published.inc(labels, marked);
    if (marked < ids.length) log.warn({ rows: ids.length - marked }, "another relay had published these too");
  };
  /** Marks what has been acknowledged so far; where that fails it stays known, for the next time. */
  const mark = (): Promise<void> => {
    marksUnderWay++;
    const marked = marking.then(async () => {
      const ids = unmarked;
      const startedMs = performance.now();
      if (ids.length > 0) noteMarked(ids, await store.markPublished(ids), startedMs);
      // What an earlier one left is marked with it.
      failedMark = undefined;
    });
    marking = marked
      .catch(() => undefined)
      .finally(() => {
        marksUnderWay--;
      });
    return marked;
  };
  /** Marks beside what comes next. Where it fails, its rows are the next one's. */
  const markBeside = () => {
    mark().catch((error: unknown) => {
      failedMark = { error };
    });
  };

  // Held keys: those that the table says are frozen, and those found here. During a pass they only grow: a key that was
  // let go between two of its rows would send the second one first.
  let frozen: StoredHeldKeys = { keys: new Set(), deadKeys: 0, isDue: false };
  let frozenReadMs = Number.NEGATIVE_INFINITY;
  const foundKeys = new Map<string, FoundKey>();
  /** Failed rows that are tried again now: their keys are frozen because of them. */
  let retriedRows: ReadonlySet<string> = new Set();
  const toldRows = new Set<string>();
  const isHeld = ({ id, aggregateId, seq }: OutboxRow) => {
    const found = foundKeys.get(aggregateId);
    if (found !== undefined && BigInt(seq) >= found.fromSeq) return true;
    return frozen.keys.has(aggregateId) && !retriedRows.has(id);
  };
  const heldKeys = () => [...new Set([...frozen.keys, ...foundKeys.keys()])];
  const exceptKeys = () => heldKeys().slice(0, exceptKeysMax);

  /**
   * Between two passes, with what `readFrozen` finds. A frozen key that was let go since the last look is only noticed a
   * little later: no harm is done.
   */
  const refreshHeldKeys = async (readFrozen: () => Promise<StoredHeldKeys>) => {
    const nowMs = performance.now();
    const found = [...foundKeys];
    const poisoned = found.filter(([, { kind }]) => kind === "poison");
    metrics.schemaBehindKeys.set(labels, found.length - poisoned.length);
    if (poisoned.length > 0 || nowMs - frozenReadMs >= pollIntervalMs) {
      frozen = await readFrozen();
      frozenReadMs = nowMs;
      metrics.heldKeys.set({ ...labels, status: "failed" }, frozen.keys.size - frozen.deadKeys);
      metrics.heldKeys.set({ ...labels, status: "dead" }, frozen.deadKeys);
    }
    // From here on the table says it.
    for (const [key] of poisoned) foundKeys.delete(key);
    for (const [key, { untilMs }] of found) if (untilMs <= nowMs) foundKeys.delete(key);
  };

  /** Where a row ends that cannot be sent: its key is held. Rows of its key before it have been sent. */
  const hold = async (row: OutboxRow, kind: Fault, error: unknown) => {
    const untilMs = kind === "poison" ? Number.POSITIVE_INFINITY : performance.now() + holdMs;
    foundKeys.set(row.aggregateId, { fromSeq: BigInt(row.seq), kind, untilMs });
    if (kind === "poison") return await countAttempt(row, error);
    // No status changes: a relay that knows the row's schema sends it, as if nothing had been.
    if (toldRows.has(row.id)) return;
    if (toldRows.size >= toldRowsMax) toldRows.clear();
    toldRows.add(row.id);
    metrics.failures.inc({ ...labels, kind });
    log.error({ kind, ...nameOf(row), err: error }, "key held until a relay with a newer schema starts");
  };

  /** A poison row becomes FAILED, and DEAD after its last attempt. */
  const countAttempt = async (row: OutboxRow, cause: unknown) => {
    const { id } = row;
    // A failed row is not tried again while one of its key before it is pending.
    await mark();
    const retryCount = await store.retryCountOf(id);
    // Settled by somebody else; what it is now is read before the next pass.
    if (retryCount === undefined) return;
    const attempts = retryCount + 1;
    const failure = { id, retryCount, error: describeError(cause) };
    const said = { kind: "poison", ...nameOf(row), attempts, err: cause };
    const isLast = attempts >= attemptsMax;
    // Sent first: at least once, where a crash comes in between.
    if (isLast && (await sendDeadLetter(row, failure.error, attempts))) {
      if (!(await store.markDead(failure))) return;
      metrics.failures.inc({ ...labels, kind: "poison" });
      metrics.dead.inc(labels);
      log.error(said, "event dead: its key waits for an operator to retry or discard it");
      return;
    }
    const delayMs = Math.min(retryBackoff.maxMs, retryBackoff.baseMs * 2 ** Math.min(retryCount, 30));
    // Without its dead-letter record a last attempt is none yet.
    if (!(await store.markFailed({ ...failure, counts: !isLast, delayMs })) || isLast) return;
    metrics.failures.inc({ ...labels, kind: "poison" });
    if (attempts === 1) metrics.failed.inc(labels);
    log.warn({ ...said, delayMs }, "event failed: its key waits until it is tried again");
  };

  /** False where the dead-letter topic does not take it: an outage, but one that holds up no other key. */
  const sendDeadLetter = async (row: OutboxRow, error: string, attempts: number): Promise<boolean> => {
    const { ceSource, topic } = options;
    const place = { source: name, ceSource, place: store.place, topic };
    try {
      await send(deadLetterTopic, [toDeadLetter({ row, ...place, error, attempts, failedAt: new Date() })]);
      return true;
    } catch (failure) {
      if (failure instanceof OwnershipLostError) throw failure;
      metrics.failures.inc({ ...labels, kind: "outage" });
      log.error({ ...nameOf(row), topic: deadLetterTopic, err: failure }, "no dead-letter record; tried again later");
      return false;
    }
  };

  const send = async (topic: string, records: readonly EventRecord[]) => {
    const open = await connected();
    // Looked at last of all: what comes before may take its time.
    if (!ownership.isFresh()) throw new OwnershipLostError();
    try {
      await open.send(topic, records);
    } catch (error) {
      metrics.producerErrors.inc({ ...labels, kind: producerErrorOf(error) });
      // A request of it may still be under way.
      discardProducer();
      throw error;
    }
  };

  const connected = async (): Promise<RecordProducer> => {
    try {
      producer ??= await options.openProducer();
      return producer;
    } catch (error) {
      metrics.producerErrors.inc({ ...labels, kind: producerErrorOf(error) });
      throw error;
    }
  };

  const discardProducer = () => {
    void producer?.close();
    producer = undefined;
  };

  /** Sends, and notes what is to be marked. A batch that is refused as too large is halved until the row is found that is. */
  const publish = async (batch: readonly Outgoing[]): Promise<void> => {
    // The first half may have held a key that the second half has rows of.
    const sendable = batch.filter(({ row }) => !isHeld(row));
    const [first, ...others] = sendable;
    if (first === undefined) return;
    try {
      await send(
        options.topic,
        sendable.map(({ record }) => record),
      );
    } catch (error) {
      const kind = faultOf(error);
      if (kind === undefined) throw error;
      if (others.length === 0) return await hold(first.row, kind, error);
      const middle = Math.ceil(sendable.length / 2);
      await publish(sendable.slice(0, middle));
      return await publish(sendable.slice(middle));
    }
    const acknowledgedMs = Date.now();
    if (unmarked.length === 0) unmarkedSinceMs = performance.now();
    unmarked = [...unmarked, ...sendable.map(({ row }) => row.id)];
    metrics.batchRows.observe(labels, sendable.length);
    const oldestMs = Math.min(...sendable.map(({ row }) => row.occurredAt.getTime()));
    metrics.commitToPublishSeconds.observe(labels, Math.max(0, acknowledgedMs - oldestMs) / 1_000);
  };

  /** Publishes a page, in sends of a size that the broker takes. False where all rows are held. */
  const deliver = async (page: readonly Encoded[]): Promise<boolean> => {
    let sent = false;
    let batch: Outgoing[] = [];
    let batchBytes = 0;
    const flush = async () => {
      const full = batch;
      batch = [];
      batchBytes = 0;
      await publish(full);
    };
    for (const encoded of page) {
      const { row } = encoded;
      if (isHeld(row)) continue;
      if ("kind" in encoded) {
        // Failed, it would freeze its key, with rows before it that an outage may keep from being sent.
        if (encoded.kind === "poison") await flush();
        // An earlier row of its key may have been refused just now: then it waits behind that one.
        if (!isHeld(row)) await hold(row, encoded.kind, encoded.error);
        continue;
      }
      const sizeBytes = encoded.record.value.byteLength + recordOverheadBytes;
      if (batchBytes + sizeBytes > sendSizeMaxBytes) await flush();
      batch.push(encoded);
      batchBytes += sizeBytes;
      sent = true;
    }
    await flush();
    return sent;
  };

  const encode = (row: OutboxRow): Encoded => {
    const { ceSource, encoding, registry } = options;
    try {
      return { row, record: toRecord(row, { ceSource, encoding, registry }) };
    } catch (error) {
      const kind = faultOf(error);
      if (kind === undefined) throw error;
      return { row, kind, error };
    }
  };

  const encodeSendable = (rows: readonly OutboxRow[]) => rows.filter((row) => !isHeld(row)).map(encode);

  /** Failed rows that are due go before the later ones of their keys. True where some went out: look again at once. */
  const retry = async (): Promise<boolean> => {
    await mark();
    const rows = await store.readDue({ exceptKeys: [...foundKeys.keys()].slice(0, exceptKeysMax), limit: dueRowsMax });
    retriedRows = new Set(rows.map(({ id }) => id));
    try {
      const sent = await deliver(rows.map(encode));
      await mark();
      return sent;
    } finally {
      retriedRows = new Set();
      frozenReadMs = Number.NEGATIVE_INFINITY;
    }
  };

  const read = async (reader: PendingReader, afterSeq: string) => {
    const limit = pageRows;
    const rows = await reader.readPending({ afterSeq, exceptKeys: exceptKeys(), limit });
    return { page: encodeSendable(rows), isFull: rows.length === limit, lastSeq: rows.at(-1)?.seq ?? afterSeq };
  };

  /** The held keys and a first page, in one round trip, with the marks of the pass before beside it. */
  const readFirst = async () => {
    // They may read as pending still.
    const acknowledged = new Set(unmarked);
    if (acknowledged.size > 0 && marksUnderWay === 0 && markDueInMs() === 0) markBeside();
    const wanted = { exceptKeys: exceptKeys(), limit: pageRows + acknowledged.size };
    let rows: readonly OutboxRow[] | undefined;
    await refreshHeldKeys(async () => {
      const found = await store.readHeldKeysAndPending(wanted);
      rows = found.rows;
      return found.heldKeys;
    });
    rows ??= await store.readPending({ ...wanted, afterSeq: "0" });
    const fresh = rows.filter(({ id }) => !acknowledged.has(id));
    const isFull = rows.length === wanted.limit || fresh.length >= pageRows;
    return { page: encodeSendable(fresh.slice(0, pageRows)), isFull };
  };

  /** A page went well: the next one may be as large as memory allows, going by this one. */
  const growPage = (page: readonly Encoded[]) => {
    if (page.length === 0) return;
    const averageBytes = page.reduce((sum, { row }) => sum + row.payload.length, 0) / page.length;
    pageRows = Math.max(probeRows, Math.min(pageRowsMax, Math.floor(pageSizeMaxBytes / Math.max(1, averageBytes))));
  };

  /** One look at the source. True where it has left a pile behind, to go on with at once. */
  const pass = async (isPile: boolean): Promise<boolean> => {
    const failed = failedMark;
    failedMark = undefined;
    if (failed !== undefined) throw failed.error;
    // After an outage, or where marking falls behind, nothing more is sent before it is seen to work.
    if (outages > 0 || unmarked.length > unmarkedRowsMax) await mark();
    if (isPile) {
      await refreshHeldKeys(() => store.readHeldKeys());
      const retried = frozen.isDue && (await retry());
      return (await drain()) || retried;
    }
    // Mostly there is little: one round trip, no transaction.
    const { page, isFull } = await readFirst();
    // Later rows of these keys are held in this pass.
    const retried = frozen.isDue && (await retry());
    await deliver(page);
    recovered();
    growPage(page);
    return (isFull && (await drain())) || retried;
  };

  /**
   * A pile: page by page from one snapshot. While one page is on its way, the next one is read and encoded, and the one
   * before is marked; all are marked at the end, before anything is read that the marks must be in.
   */
  const drain = async () => {
    await mark();
    return await store.snapshot(async (reader) => {
      const endMs = performance.now() + snapshotAgeMaxMs;
      let { page, isFull, lastSeq } = await read(reader, "0");
      let sent = false;
      for (;;) {
        // Begun again before anything was sent, it would never get past a pile of held rows that takes longer to read.
        const goOn = isFull && !closing.signal.aborted && (!sent || performance.now() < endMs);
        const ahead = goOn ? read(reader, lastSeq) : undefined;
        // Where the delivery fails, nobody else will look at it.
        ahead?.catch(() => undefined);
        sent = (await deliver(page)) || sent;
        growPage(page);
        if (ahead === undefined || unmarked.length > unmarkedRowsMax) await mark();
        else markBeside();
        if (ahead === undefined) return isFull;
        ({ page, isFull, lastSeq } = await ahead);
      }
    });
  };

  const recovered = () => {
    if (outages > 0) log.info({ attempts: outages }, "delivering again");
    outages = 0;
  };

  const backOff = async (error: unknown) => {
    pageRows = probeRows;
    // Of a broker, perhaps: what it had acknowledged need not wait for it.
    if (unmarked.length > 0 && marksUnderWay === 0) markBeside();
    metrics.failures.inc({ ...labels, kind: "outage" });
    // At 1, 2, 4, 8 … attempts: a long outage is no reason for a long log.
    if (Number.isInteger(Math.log2(outages + 1))) log.warn({ err: error, attempts: outages + 1 }, "outage");
    await sleep(fullJitterMs(outages++, backoffMs), closing.signal);
  };

  /** Until there may be something to do. Where hints keep coming, marks go beside the reads that follow. */
  const rest = async () => {
    if (unmarked.length > 0) {
      await sleepUntilHinted(markDueInMs());
      if (hinted || closing.signal.aborted) return;
      markBeside();
    }
    await sleepUntilHinted(pollIntervalMs);
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
        await connected();
        const passing = pass(isPile);
        looking = passing.catch(() => undefined);
        isPile = await passing;
        if (!isPile) await rest();
      } catch (error) {
        isPile = false;
        // A row that goes before a held one may not have been sent, and is not read while its key is held.
        foundKeys.clear();
        frozenReadMs = Number.NEGATIVE_INFINITY;
        if (!(error instanceof OwnershipLostError)) await backOff(error);
      }
    }
    await mark().catch((error) => log.warn({ err: error, rows: unmarked.length }, "not marked: sent again later"));
  };

  const measure = async () => {
    if (!ownership.isFresh()) return;
    const { pendingRows, heldRows, oldestPendingAgeMs } = await store.measure(exceptKeys());
    if (!ownership.isFresh()) return;
    metrics.pendingRows.set(labels, pendingRows);
    metrics.heldRows.set(labels, heldRows);
    metrics.oldestPendingAgeSeconds.set(labels, oldestPendingAgeMs / 1_000);
  };
  /** Another process shows them from now on. */
  const forget = () => {
    for (const gauge of [metrics.pendingRows, metrics.heldRows, metrics.oldestPendingAgeSeconds]) gauge.remove(labels);
    for (const status of ["failed", "dead"]) metrics.heldKeys.remove({ ...labels, status });
    metrics.schemaBehindKeys.remove(labels);
  };
  // Beside the deliveries, which do not wait for it; what keeps it from working keeps them, and is told there.
  const measuring = every(options.measureIntervalMs ?? 5_000, measure, () => undefined);

  ownership.onChange((owned) => {
    metrics.owner.set(labels, owned ? 1 : 0);
    // Whoever owned it in between may have frozen keys.
    frozenReadMs = Number.NEGATIVE_INFINITY;
    if (!owned) {
      outages = 0;
      forget();
    }
    wake();
    // Nothing more is sent by now; what was sent gets marked before another one looks.
    return looking.then(() => mark().catch(() => undefined));
  });
  metrics.owner.set(labels, ownership.isFresh() ? 1 : 0);
  const running = run();

  return {
    hint: wake,
    isHealthy: () => ownership.isDatabaseReachable() && outages === 0,
    async close() {
      closing.abort();
      idle.abort();
      await Promise.all([running, measuring.close()]);
      await Promise.allSettled([producer?.close(), ownership.close(), store.close()]);
    },
  };
}

/** A row in a log. */
function nameOf({ id, type, aggregateId, seq }: OutboxRow) {
  return { id, type, key: aggregateId, seq };
}
