/** What the Kafka cluster looks like from outside, also while some of its brokers are away. */
import { sagaTopic } from "../../proto/event-table.ts";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { withDeadline } from "../../services/kit/deadline.ts";
import { deadLetterTopic } from "../../services/stack/provision.ts";
import { instanceName } from "../../services/stack/settings.ts";
import type { Broker } from "./topology.ts";

export const offsetsTopic = "__consumer_offsets";
/** `offsets.topic.num.partitions` of the local stack. */
const offsetsPartitions = 3;

const askTimeoutMs = 3_000;
const inSyncTimeoutMs = 60_000;
const pollMs = 100;

/** The broker's process name. Its id in the cluster is its number. */
export function brokerName(id: number): Broker {
  return instanceName("kafka", id) as Broker;
}

/**
 * Asks the cluster through connections of its own: those of a client that lives longer hang while a broker is frozen.
 * @throws Error if it has no answer within a few seconds.
 */
export async function ask<T>(kafka: KafkaOptions, question: (admin: KafkaAdmin) => Promise<T>): Promise<T> {
  const admin = await openAdmin(kafka);
  try {
    return await withDeadline(question(admin), askTimeoutMs, () => new Error("The cluster did not answer."));
  } finally {
    void admin.close().catch(() => undefined);
  }
}

/** The partition of Kafka's own topic that holds a group's offsets. Its leader is the group's coordinator. */
export function coordinatorPartition(groupId: string): number {
  // String.hashCode() of Java.
  let hash = 0;
  for (const character of groupId) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) | 0;
  return (hash & 0x7fff_ffff) % offsetsPartitions;
}

/** The id and the epoch of the broker that became the active controller last, by the brokers' logs. */
export function controllerOf(logs: readonly string[]): { readonly id: number; readonly epoch: number } | undefined {
  const found = logs.flatMap((log) =>
    [...log.matchAll(/\[QuorumController id=(\d+)\] Becoming the active controller at epoch (\d+)/g)].map(
      ([, id, epoch]) => ({ id: Number(id), epoch: Number(epoch) }),
    ),
  );
  return found.sort((left, right) => right.epoch - left.epoch)[0];
}

/** Resolves once every broker has every record of every partition. @throws Error if that takes longer than a minute. */
export async function untilInSync(kafka: KafkaOptions, brokers: number): Promise<void> {
  const deadlineMs = performance.now() + inSyncTimeoutMs;
  for (;;) {
    const lagging = await ask(kafka, (admin) => laggingPartitions(admin, brokers)).catch(() => ["unknown"]);
    if (lagging.length === 0) return;
    if (performance.now() > deadlineMs) {
      throw new Error(`Replicas are not in sync after ${inSyncTimeoutMs / 1_000} s: ${lagging.join(", ")}.`);
    }
    await sleep(pollMs);
  }
}

async function laggingPartitions(admin: KafkaAdmin, brokers: number): Promise<readonly string[]> {
  const lagging: string[] = [];
  for (const topic of [sagaTopic, deadLetterTopic, offsetsTopic]) {
    for (const { partition, insync } of await admin.listReplicas(topic)) {
      if (insync.length < brokers) lagging.push(`${topic}/${partition}`);
    }
  }
  return lagging;
}
