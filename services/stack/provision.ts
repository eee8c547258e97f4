/**
 * Creates databases, users, tables, demo data and topics, as far as they are missing. `npm start` calls it; in
 * compose.yaml it is the container `setup`. Works on MySQL 8.4 and later and on MariaDB.
 */

import { join } from "node:path";
import { type ServiceName, sagaTopic } from "../../proto/event-table.ts";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import { retryFor, sleep } from "../kit/backoff.ts";
import { environment, type HostPort, hostPorts, integer, readConfig, url } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { messageOf } from "../kit/errors.ts";
import { silentLogger } from "../kit/log.ts";
import { migrate } from "../kit/migrate.ts";
import { say } from "./console.ts";
import { databaseUsers, migratorUser, setRights } from "./rights.ts";
import { insyncReplicasMin } from "./servers/kafka-properties.ts";
import { type ServiceDefinition, schemaName, serviceNames, services } from "./services.ts";

export const deadLetterTopic = "shop.order-saga.dlq";

/** Fixed for good: more partitions would move keys and break the order of their events. To grow, drain into a new topic. */
const partitionCount = 12;
const retentionMs = 7 * 24 * 60 * 60 * 1_000;
const messageBytesMax = 1_048_576;
const waitForLeadersMs = 15_000;
const waitForServersMs = 180_000;

/** Schema changes may take long; a server that does not answer at all must not hold up the start for ever. */
const statementTimeoutMs = 60_000;

/**
 * Creates databases, users, tables and demo data, and sets the users' rights. What exists stays, but for rights that a user
 * should not have. It may run any number of times, also concurrently.
 * @param adminUrl for a user who may create databases and users. A schema in the URL is ignored.
 */
export async function provisionDatabases(adminUrl: string): Promise<void> {
  const admin = openDatabase({
    url: withSchema(adminUrl, ""),
    connectionsMax: 1,
    connectTimeoutMs: 5_000,
    statementTimeoutMs,
  });
  try {
    for (const user of databaseUsers) {
      // The password is the user's name: fine for one machine, and obviously for nothing else.
      await admin.execute(`CREATE USER IF NOT EXISTS '${user}'@'%' IDENTIFIED BY '${user}'`);
    }
    for (const schema of serviceNames.map(schemaName)) {
      await admin.execute(`CREATE DATABASE IF NOT EXISTS ${schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`);
      await admin.execute(`GRANT ALL PRIVILEGES ON ${schema}.* TO '${migratorUser}'@'%'`);
    }
    await Promise.all(serviceNames.map((service) => provisionSchema(adminUrl, service)));
    for (const service of serviceNames) await setRights(admin, service);
  } finally {
    await admin.close();
  }
}

async function provisionSchema(adminUrl: string, service: ServiceName): Promise<void> {
  const databaseUrl = withSchema(adminUrl, schemaName(service), migratorUser);
  await migrate({ databaseUrl, folder: join(import.meta.dir, "..", service, "migrations") });
  const { seed }: ServiceDefinition = services[service];
  await seed?.(databaseUrl);
}

function withSchema(adminUrl: string, schema: string, user?: string): string {
  const result = new URL(adminUrl);
  result.pathname = `/${schema}`;
  if (user !== undefined) {
    result.username = user;
    result.password = user;
  }
  return result.href;
}

/**
 * Creates the saga's topic and the dead-letter topic, with every setting that matters made explicit.
 * @throws Error if a topic exists with another number of partitions.
 */
export async function provisionTopics(brokers: readonly HostPort[], replication: number): Promise<void> {
  const admin = await openAdmin({ brokers, clientId: "provision", log: silentLogger });
  try {
    const present = await admin.listTopics();
    const missing = [sagaTopic, deadLetterTopic].filter((topic) => !present.includes(topic));
    if (missing.length > 0) {
      await admin.createTopics(
        missing.map((topic) => ({
          topic,
          partitions: partitionCount,
          replication,
          config: {
            "retention.ms": String(retentionMs),
            "max.message.bytes": String(messageBytesMax),
            "min.insync.replicas": String(insyncReplicasMin(replication)),
          },
        })),
      );
    }
    for (const topic of [sagaTopic, deadLetterTopic]) await requirePartitions(admin, topic);
  } finally {
    await admin.close();
  }
}

async function requirePartitions(admin: KafkaAdmin, topic: string): Promise<void> {
  const length = await partitionsOf(admin, topic);
  if (length === partitionCount) return;
  throw new Error(
    `The topic ${topic} has ${length} partitions instead of ${partitionCount}. Drain it, delete it, then try again.`,
  );
}

/** Retries: after a start, or after creating the topic, the broker takes a moment to lead its partitions. */
async function partitionsOf(admin: KafkaAdmin, topic: string): Promise<number> {
  return await retryFor(async () => (await admin.endOffsets(topic)).length, waitForLeadersMs, 100);
}

/** Retries until the servers answer: in containers they start at the same time as this process. */
async function retryUntilItWorks(what: string, work: () => Promise<void>): Promise<void> {
  const deadlineMs = performance.now() + waitForServersMs;
  for (;;) {
    try {
      await work();
      say(`${what}: ready.`);
      return;
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      say(`${what}: not yet (${messageOf(error)}). Retrying in 2 s …`);
      await sleep(2_000);
    }
  }
}

if (import.meta.main) {
  const config = readConfig(environment(), {
    databaseAdminUrl: url("DATABASE_ADMIN_URL", ["mysql:"]),
    brokers: hostPorts("KAFKA_BROKERS"),
    replication: integer("TOPIC_REPLICATION", { fallback: 1, min: 1, max: 9 }),
  });
  try {
    await Promise.all([
      retryUntilItWorks("Databases", () => provisionDatabases(config.databaseAdminUrl)),
      retryUntilItWorks("Topics", () => provisionTopics(config.brokers, config.replication)),
    ]);
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
