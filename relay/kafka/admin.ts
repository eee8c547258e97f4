/** Administration of a cluster: topics, offsets and consumer groups. */
import { type Admin, ConfigResourceTypes, KafkaJSProtocolError } from "kafkajs";
import { retryFor } from "../../services/kit/backoff.ts";
import type { HostPort } from "../../services/kit/config.ts";
import { withDeadline } from "../../services/kit/deadline.ts";
import { type KafkaOptions, kafkaClient } from "./client.ts";
import { BrokerTimeoutError } from "./errors.ts";

/** Administrative requests to a cluster. */
export interface KafkaAdmin {
  /** Creates the topics that are missing and leaves the others as they are. */
  createTopics(
    topics: readonly {
      readonly topic: string;
      readonly partitions: number;
      readonly replication: number;
      readonly config: Readonly<Record<string, string>>;
    }[],
  ): Promise<void>;
  listTopics(): Promise<readonly string[]>;
  /** The brokers that serve clients at the moment. */
  listBrokers(): Promise<readonly (HostPort & { readonly id: number })[]>;
  /** Moves a partition to these brokers. Resolves when the cluster has accepted it; the copying takes longer. */
  moveReplicas(topic: string, partition: number, replicas: readonly number[]): Promise<void>;
  deleteTopics(topics: readonly string[]): Promise<void>;
  /** Which brokers have each partition of a topic, by their ids. */
  listReplicas(topic: string): Promise<readonly PartitionReplicas[]>;
  /** By partition: where the next record goes (`offset`), and the lowest offset that is still kept (`low`), in decimal. */
  endOffsets(
    topic: string,
  ): Promise<readonly { readonly partition: number; readonly offset: string; readonly low: string }[]>;
  /** How long the topic keeps records; Infinity if it keeps them forever. */
  retentionMs(topic: string): Promise<number>;
  /** A group's committed offsets, in decimal; -1 for a partition without one. */
  committedOffsets(
    groupId: string,
    topic: string,
  ): Promise<readonly { readonly partition: number; readonly offset: string }[]>;
  /** Resets a group to the start of the topic. The group must have no members. */
  resetOffsets(groupId: string, topic: string): Promise<void>;
  deleteGroup(groupId: string): Promise<void>;
  close(): Promise<void>;
}

/** Where a partition's copies are. Ids are those of {@link KafkaAdmin.listBrokers}. */
export interface PartitionReplicas {
  readonly partition: number;
  /** -1 while it has none. */
  readonly leader: number;
  readonly replicas: readonly number[];
  /** The replicas that have every acknowledged record. */
  readonly insync: readonly number[];
}

const connectTimeoutMs = 2_000;
/** How long the brokers may take to hear of new topics. */
const topicsKnownTimeoutMs = 15_000;

/** Connects to the cluster for administration. @throws Error if no broker answers. */
export async function openAdmin(options: KafkaOptions): Promise<KafkaAdmin> {
  // kafkajs retries connecting by the client's setting and requests by the admin's. Connecting has a time limit as well.
  const retry = { initialRetryTime: 100, retries: 1 };
  const admin: Admin = kafkaClient(options, { retry }).admin({ retry: { initialRetryTime: 100, retries: 3 } });
  try {
    const timeout = () => new BrokerTimeoutError("Connecting to the broker", connectTimeoutMs);
    await withDeadline(admin.connect(), connectTimeoutMs, timeout);
  } catch (error) {
    void admin.disconnect().catch(() => undefined);
    throw error;
  }
  return {
    async createTopics(topics) {
      const created = admin.createTopics({
        waitForLeaders: true,
        topics: topics.map(({ topic, partitions, replication, config }) => ({
          topic,
          numPartitions: partitions,
          replicationFactor: replication,
          configEntries: Object.entries(config).map(([name, value]) => ({ name, value })),
        })),
      });
      await created.catch(async (error) => {
        // They are created, but another broker was asked for their leaders, and it has not heard of them yet.
        if (!(error instanceof KafkaJSProtocolError) || error.type !== "UNKNOWN_TOPIC_OR_PARTITION") throw error;
        const names = topics.map(({ topic }) => topic);
        await retryFor(() => admin.fetchTopicMetadata({ topics: names }), topicsKnownTimeoutMs, 100);
      });
    },
    listTopics: () => admin.listTopics(),
    async listBrokers() {
      const { brokers } = await admin.describeCluster();
      return brokers.map(({ nodeId, host, port }) => ({ id: nodeId, host, port }));
    },
    async listReplicas(topic) {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      return (topics[0]?.partitions ?? []).map(({ partitionId, leader, replicas, isr }) => ({
        partition: partitionId,
        leader,
        replicas,
        insync: isr,
      }));
    },
    async moveReplicas(topic, partition, replicas) {
      const partitionAssignment = [{ partition, replicas: [...replicas] }];
      await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment }] });
    },
    deleteTopics: (topics) => admin.deleteTopics({ topics: [...topics] }),
    endOffsets: (topic) => admin.fetchTopicOffsets(topic),
    async retentionMs(topic) {
      const resource = { type: ConfigResourceTypes.TOPIC, name: topic, configNames: ["retention.ms"] };
      const { resources } = await admin.describeConfigs({ resources: [resource], includeSynonyms: false });
      const value = Number(resources[0]?.configEntries[0]?.configValue);
      if (Number.isNaN(value)) throw new Error(`The broker does not report how long ${topic} keeps records.`);
      return value < 0 ? Number.POSITIVE_INFINITY : value;
    },
    async committedOffsets(groupId, topic) {
      const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] });
      return offsets?.partitions ?? [];
    },
    resetOffsets: (groupId, topic) => admin.resetOffsets({ groupId, topic, earliest: true }),
    async deleteGroup(groupId) {
      await admin.deleteGroups([groupId]);
    },
    close: () => admin.disconnect(),
  };
}
