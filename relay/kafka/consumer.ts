/**
 * Consumes a topic as a member of a group, with what kafkajs lacks: heartbeats during a long batch, and a signal when
 * the partition may belong to another member.
 */
import type { Consumer } from "kafkajs";
import type { ConsumedRecord } from "../../proto/envelope.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { type KafkaOptions, kafkaClient } from "./client.ts";

/** A record that was consumed, with its place on the topic. */
export interface TopicRecord extends ConsumedRecord {
  readonly partition: number;
  /** Decimal. */
  readonly offset: string;
  /** When the record was produced. */
  readonly publishedAt: Date;
}

/** A consumer of one topic in a group. */
export interface TopicConsumer {
  /** True while it is in its group and has heard from the broker within the last seconds. */
  isReady(): boolean;
  /** Lets the batches under way finish, commits their offsets, leaves the group. */
  close(): Promise<void>;
}

export interface TopicConsumerOptions extends KafkaOptions {
  readonly groupId: string;
  readonly topic: string;
  /** Where a group starts that has committed nothing yet. */
  readonly from: "earliest" | "latest";
  /** How long records may be gathered on the broker before they are delivered. Default: not at all. */
  readonly gatherMs?: number;
  /** Whether the group's offsets are committed, some time after each batch. */
  readonly commitOffsets: boolean;
  readonly partitionsConcurrently: number;
  readonly batchSizeMax: number;
  /**
   * Handles records of one partition, in order. When it throws they are delivered again, some that were handled perhaps
   * among them. `signal` is aborted when the
   * partition may belong to another member by now, or the consumer is closing: then stop waiting and throw. `endOffset`
   * (decimal) is the one that the partition's next record gets, as of the fetch.
   */
  readonly onBatch: (records: readonly TopicRecord[], signal: AbortSignal, endOffset: string) => Promise<void>;
  /**
   * Whether nobody waits for a record: such ones are gathered, and handled with the next other record of their
   * partition, or after `waitMaxMs`. Their offsets are committed when they are handled. Default: nothing waits.
   */
  readonly mayWait?: (record: TopicRecord) => boolean;
  /** Default 0. */
  readonly waitMaxMs?: number;
  readonly onAssigned?: () => void;
  /** The consumer has stopped for good; the process should end and be started again. */
  readonly onCrash: (error: Error) => void;
}

/** Above the interval at which an idle consumer hears from its broker, several times over. */
const silenceMaxMs = 5_000;
const commitIntervalMs = 200;
const gatherBytes = 100_000;
/** What a batch under way may take before its consumer leaves all the same. */
const closeTimeoutMs = 3_000;

/** Joins the group in the background, whether or not a broker answers yet, and keeps trying. */
export async function consumeTopic(options: TopicConsumerOptions): Promise<TopicConsumer> {
  const consumer: Consumer = kafkaClient(options).consumer({
    groupId: options.groupId,
    allowAutoTopicCreation: false,
    // A member that was killed is missed after 6 s, the shortest that brokers allow by default.
    sessionTimeout: 6_000,
    heartbeatInterval: 1_500,
    rebalanceTimeout: 10_000,
    // By default an answer comes as soon as there is a record; a consumer that can wait gathers more into each.
    minBytes: options.gatherMs === undefined ? 1 : gatherBytes,
    maxWaitTimeInMs: options.gatherMs ?? 500,
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 8, restartOnFailure: async () => true },
  });
  const closing = new AbortController();
  let lastContactMs = 0;
  const contact = () => {
    lastContactMs = Date.now();
  };
  const { GROUP_JOIN, HEARTBEAT, FETCH, CRASH } = consumer.events;
  consumer.on(HEARTBEAT, contact);
  consumer.on(FETCH, contact);
  consumer.on(GROUP_JOIN, () => {
    contact();
    joins++;
    handled = new Map();
    endAssignment(new Error("The group has been joined anew."));
    options.onAssigned?.();
  });
  consumer.on(CRASH, ({ payload }) => {
    if (!payload.restart && !closing.signal.aborted) options.onCrash(payload.error);
  });

  // Offsets that are handled and not committed yet, the next one to read by partition. One request commits them all,
  // some times a second: what a crash lets come again is known to the inbox.
  let handled = new Map<number, string>();
  let batchesUnderWay = 0;
  let joins = 0;
  /** Partitions may belong to other members by now. */
  const endAssignment = (reason: unknown) => {
    assignment.abort(reason);
    assignment = new AbortController();
  };
  let assignment = new AbortController();
  const commitHandled = async () => {
    if (!options.commitOffsets || handled.size === 0) return;
    const offsets = [...handled].map(([partition, offset]) => ({ topic: options.topic, partition, offset }));
    const committed = handled;
    handled = new Map();
    const joinsBefore = joins;
    try {
      await consumer.commitOffsets(offsets);
    } catch (error) {
      options.log.warn({ err: error }, "offsets not committed");
      // The next time, unless the group has been joined anew: then somebody else may be further.
      if (joins === joinsBefore) handled = new Map([...committed, ...handled]);
    }
  };
  const committing = setInterval(commitHandled, commitIntervalMs);

  const handle = async (
    partition: number,
    records: readonly TopicRecord[],
    signal: AbortSignal,
    endOffset: string,
    joinsBefore = joins,
  ) => {
    const last = records.at(-1);
    if (last === undefined) return;
    batchesUnderWay++;
    try {
      await options.onBatch(records, signal, endOffset);
      // Meanwhile the partition may have become somebody else's, who may be further.
      if (joins === joinsBefore) handled.set(partition, (BigInt(last.offset) + 1n).toString());
    } finally {
      batchesUnderWay--;
    }
  };

  // Records that nobody waits for: read, and not handled yet. They are kept until they are, whoever owns the partition:
  // what kafkajs brings next may follow on them even after a join. What comes twice by that is known to the inbox.
  interface Gathered {
    readonly records: readonly TopicRecord[];
    readonly endOffset: string;
    readonly joins: number;
  }
  const { mayWait = () => false, waitMaxMs = 0 } = options;
  const gathered = new Map<number, Gathered>();
  let gathering: ReturnType<typeof setTimeout> | undefined;
  /** By partition, what is under way or waits for it: its records are handled one after the other. */
  const turns = new Map<number, Promise<void>>();
  const inTurn = (partition: number, work: () => Promise<void>): Promise<void> => {
    const turn = (turns.get(partition) ?? Promise.resolve()).then(work);
    turns.set(
      partition,
      turn.catch(() => undefined),
    );
    return turn;
  };
  /** In the partition's turn. Where it fails, what was gathered before stays so: kafkajs will not deliver it again. */
  const receive = async (
    partition: number,
    records: readonly TopicRecord[],
    signal: AbortSignal,
    endOffset: string,
  ) => {
    const waiting = gathered.get(partition)?.records ?? [];
    const together = [...waiting, ...records];
    const fits = together.length <= options.batchSizeMax;
    if (fits && records.every(mayWait)) {
      gathered.set(partition, { records: together, endOffset, joins });
      gathering ??= setTimeout(handleGathered, waitMaxMs);
      return;
    }
    if (!fits) await handle(partition, waiting, signal, endOffset);
    await handle(partition, fits ? together : records, signal, endOffset);
    gathered.delete(partition);
  };
  const handleGathered = () => {
    gathering = undefined;
    const signal = AbortSignal.any([assignment.signal, closing.signal]);
    for (const partition of gathered.keys()) {
      inTurn(partition, async () => {
        const waiting = gathered.get(partition);
        // They may have gone with others meanwhile.
        if (waiting === undefined) return;
        await handle(partition, waiting.records, signal, waiting.endOffset, waiting.joins);
        gathered.delete(partition);
      }).catch((error) => {
        if (closing.signal.aborted) return;
        options.log.warn({ err: error, partition }, "not handled; tried again");
        gathering ??= setTimeout(handleGathered, waitMaxMs);
      });
    }
  };

  const start = async () => {
    for (;;) {
      try {
        await consumer.connect();
        await consumer.subscribe({ topic: options.topic, fromBeginning: options.from === "earliest" });
        break;
      } catch (error) {
        if (closing.signal.aborted) return;
        options.log.warn({ err: error, groupId: options.groupId }, "waiting for the broker");
        await sleep(500);
      }
    }
    if (closing.signal.aborted) return;
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: options.partitionsConcurrently,
      eachBatch: async ({ batch, heartbeat, resolveOffset, isRunning, isStale }) => {
        const lost = new AbortController();
        const signal = AbortSignal.any([lost.signal, closing.signal]);
        const lose = (error: unknown) => {
          lost.abort(error);
          // This batch may wait for gathered records, whose handling would outlast the group's patience.
          endAssignment(error);
        };
        const beat = setInterval(() => heartbeat().catch(lose), 1_000);
        try {
          await inTurn(batch.partition, async () => {
            for (let first = 0; first < batch.messages.length; first += options.batchSizeMax) {
              if (!isRunning() || isStale() || signal.aborted) break;
              const messages = batch.messages.slice(first, first + options.batchSizeMax);
              await receive(
                batch.partition,
                messages.map(({ key, value, headers, offset, timestamp }) => ({
                  key,
                  value,
                  headers,
                  partition: batch.partition,
                  offset,
                  publishedAt: new Date(Number(timestamp)),
                })),
                signal,
                batch.highWatermark,
              );
              resolveOffset(messages.at(-1)?.offset ?? batch.lastOffset());
            }
          });
          // A rebalance is told to kafkajs by its own error, so that it joins again.
          if (lost.signal.aborted) throw lost.signal.reason;
        } finally {
          clearInterval(beat);
        }
      },
    });
  };
  const started = start().catch(options.onCrash);

  return {
    isReady: () => Date.now() - lastContactMs < silenceMaxMs,
    async close() {
      closing.abort(new Error("The consumer is closing."));
      clearInterval(committing);
      clearTimeout(gathering);
      await Promise.race([started, sleep(1_000)]);
      for (let waitedMs = 0; batchesUnderWay > 0 && waitedMs < closeTimeoutMs; waitedMs += 10) {
        await sleep(10);
      }
      await Promise.race([commitHandled(), sleep(1_000)]);
      await consumer.disconnect().catch(() => undefined);
    },
  };
}
