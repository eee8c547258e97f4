import { openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { consumeTopic } from "../../relay/kafka/consumer.ts";
import { endsWithin } from "../kit/deadline.ts";
import type { OrderWatch } from "./watch.ts";

/** Tells this process's watch which orders appear on the topic. */
export interface WatchFeed {
  isReady(): boolean;
  close(): Promise<void>;
  /** Deletes the feed's consumer group after `close`. Waits for at most a second. */
  deleteGroup(): Promise<void>;
}

/**
 * Long enough to collect many records in one fetch. This process's own changes do not wait for it: it announces them to the
 * watch at commit.
 */
const fetchWaitMs = 50;
const deleteGroupTimeoutMs = 1_000;

/**
 * Reads every record of the topic as a sign that its order may have changed, because any instance of Order may handle an
 * order that is watched here. For that, each process has a consumer group to itself.
 */
export function startWatchFeed(options: {
  readonly kafka: KafkaOptions;
  readonly topic: string;
  /** Unique to this run of the process. */
  readonly groupId: string;
  readonly watch: Pick<OrderWatch, "mayHaveChanged" | "anyMayHaveChanged">;
  readonly onCrash: (error: Error) => void;
}): WatchFeed {
  const { kafka, topic, groupId, watch } = options;
  const consumer = consumeTopic({
    ...kafka,
    groupId,
    topic,
    from: "latest",
    fetchWaitMs,
    commitOffsets: false,
    // The topic's partitions.
    partitionsConcurrently: 12,
    batchSizeMax: 1_000,
    async onBatch(records) {
      watch.mayHaveChanged(records.flatMap(({ key }) => (key === null ? [] : [new TextDecoder().decode(key)])));
    },
    // The records before the join were missed.
    onAssigned: watch.anyMayHaveChanged,
    onCrash: options.onCrash,
  });
  const deleteGroup = async () => {
    const admin = await openAdmin(kafka);
    await admin.deleteGroup(groupId);
    await admin.close();
  };
  return {
    isReady: consumer.isReady,
    close: consumer.close,
    async deleteGroup() {
      // If no broker answers, the group is left behind. The broker removes it later, because it has committed no offsets.
      await endsWithin(deleteGroup(), deleteGroupTimeoutMs);
    },
  };
}
