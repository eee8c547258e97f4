/** Whether a consumer group has caught up with a topic. */
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";

export interface TopicProgress {
  /**
   * True if the group has handled everything that was on the topic at the previous call, and that call was at most 5 s
   * ago. The first call returns false. Call it regularly.
   * @throws Error while no broker answers.
   */
  checkCaughtUp(): Promise<boolean>;
  close(): Promise<void>;
}

/**
 * End offsets that were read longer ago than this are not used. Otherwise a process that was suspended for minutes would
 * count as caught up although the topic has grown since.
 */
const endsAgeMaxMs = 5_000;

/** The end offsets of all partitions at one time. */
interface EndOffsets {
  readonly byPartition: ReadonlyMap<number, bigint>;
  readonly readAtMs: number;
}

/**
 * Compares the group's committed offsets with the topic's end offsets at the previous check. The present end offsets would
 * not do: on a busy topic they are always ahead, because offsets are committed a moment after the records are handled.
 */
export function createTopicProgress(options: {
  readonly kafka: KafkaOptions;
  readonly topic: string;
  readonly groupId: string;
  /** A monotonic clock. Default: the process's. */
  readonly nowMs?: () => number;
}): TopicProgress {
  const nowMs = options.nowMs ?? (() => performance.now());
  let admin: KafkaAdmin | undefined;
  let previousEnds: EndOffsets | undefined;

  const reset = async () => {
    const closing = admin;
    admin = undefined;
    previousEnds = undefined;
    await closing?.close().catch(() => undefined);
  };

  const check = async () => {
    admin ??= await openAdmin(options.kafka);
    const committed = new Map(
      (await admin.committedOffsets(options.groupId, options.topic)).map((it) => [it.partition, BigInt(it.offset)]),
    );
    const readAtMs = nowMs();
    const ranges = await admin.endOffsets(options.topic);
    const beginnings = new Map(ranges.map((it) => [it.partition, BigInt(it.low)]));
    // A group that has committed nothing yet (-1), or whose next records have expired, is at the beginning of the partition.
    const positionOf = (partition: number) => {
      const offset = committed.get(partition) ?? -1n;
      const beginning = beginnings.get(partition) ?? 0n;
      return offset < beginning ? beginning : offset;
    };
    const caughtUp =
      previousEnds !== undefined &&
      nowMs() - previousEnds.readAtMs <= endsAgeMaxMs &&
      [...previousEnds.byPartition].every(([partition, end]) => positionOf(partition) >= end);
    previousEnds = { byPartition: new Map(ranges.map((it) => [it.partition, BigInt(it.offset)])), readAtMs };
    return caughtUp;
  };

  return {
    async checkCaughtUp() {
      try {
        return await check();
      } catch (error) {
        await reset();
        throw error;
      }
    },
    close: reset,
  };
}
