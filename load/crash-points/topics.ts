/** The topics of the runs. */
import { openAdmin } from "../../relay/kafka/admin.ts";
import { testKafka } from "../../relay/testing.ts";
import { eventually } from "../../services/kit/testing.ts";

const knownTimeoutMs = 30_000;

/** Settles when the topic that was requested last is created. */
let lastCreated: Promise<unknown> = Promise.resolve();

/** A topic of one run. */
export interface RunTopic {
  readonly topic: string;
  /** The number of records on it. */
  size(): Promise<number>;
}

/** Creates a topic, and adds its name to `topics`. */
export async function createRunTopic(topics: string[]): Promise<RunTopic> {
  const topic = `crash.${crypto.randomUUID()}`;
  topics.push(topic);
  // One after the other: a fresh broker that is asked for dozens of topics at once creates none of them in time.
  const created = lastCreated.then(() => createTopic(topic)).catch(() => undefined);
  lastCreated = created;
  await created;
  const size = async () => {
    const opened = await openTopicSize(topic);
    return await opened.size().finally(opened.close);
  };
  // When many topics come and go, it takes a moment until the broker knows a new one everywhere. If it was not created,
  // this fails.
  await eventually(size, knownTimeoutMs);
  return { topic, size };
}

async function createTopic(topic: string): Promise<void> {
  const admin = await openAdmin(testKafka());
  await admin.createTopics([{ topic, partitions: 3, replication: 1, config: {} }]).finally(admin.close);
}

export async function deleteTopics(topics: readonly string[]): Promise<void> {
  if (topics.length === 0) return;
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics(topics).finally(admin.close);
}

/** Counts a topic's records again and again, over one connection. */
export async function openTopicSize(topic: string): Promise<{ size(): Promise<number>; close(): Promise<void> }> {
  const admin = await openAdmin(testKafka());
  return {
    async size() {
      return (await admin.endOffsets(topic)).reduce((sum, { offset }) => sum + Number(offset), 0);
    },
    close: admin.close,
  };
}
