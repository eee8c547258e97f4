/** The source that a benchmark relays: a schema with the shop's own outbox, an account for the relay, and a topic. */
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { toOutboxRow } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { HostPort } from "../../services/kit/config.ts";
import { type Database, insertRows, openDatabase, type Queryable } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { migrate } from "../../services/kit/migrate.ts";
import type { SqlValue } from "../../services/kit/statements.ts";
import { childTraceparent } from "../../services/kit/traceparent.ts";

/** Where the benchmark's servers are. */
export interface BenchServers {
  /** A user who may create databases and users. */
  readonly databaseAdminUrl: string;
  readonly kafkaBrokers: readonly HostPort[];
}

/** A source that nobody else uses. */
export interface BenchOutbox {
  readonly service: typeof service;
  readonly table: string;
  readonly archiveTable: string;
  readonly topic: string;
  readonly deadLetterTopic: string;
  readonly kafka: KafkaOptions;
  /** As the relay's account, which has the rights on the two tables that the shop's relay has, and no others. */
  readonly relayUrl: string;
  /** As an administrator. */
  readonly database: Database;
  /** Appends events of the given keys in turn, all in one transaction or, published ones, in many. */
  fill(count: number, status: "PENDING" | "PUBLISHED"): Promise<void>;
  /** Appends one event and commits. Returns its id. */
  append(on?: Queryable): Promise<string>;
  /** Records on the topic, since it was created. */
  recordsCount(): Promise<number>;
  /**
   * Resolves once the topic holds `recordsCount` records and no row is pending. Asks the broker, which is cheap, and the
   * relay not at all: a look at its metrics would take part of what is measured.
   * @throws Error after 10 minutes.
   */
  drained(recordsCount: number): Promise<void>;
  /** Empties both tables. */
  empty(): Promise<void>;
  /** Removes all of it from the servers. */
  drop(): Promise<void>;
}

const service = "order";
const keysDefault = 10_000;
/** With these, a payload of `OrderPlaced` has 300 bytes. */
const linesOfEvent = 5;
const partitions = 12;
const insertRowsMax = 1_000;
/** Undo of published rows in one piece would be larger than the server's buffers. */
const publishedRowsOfTransaction = 20_000;
const statementTimeoutMs = 60_000;
const drainTimeoutMs = 600_000;
const drainPollMs = 250;

/** Creates the source. Its events are of `keys` different keys (default 10,000), in turn. */
export async function createBenchOutbox(
  servers: BenchServers,
  { keys: keysCount = keysDefault }: { readonly keys?: number } = {},
): Promise<BenchOutbox> {
  const name = `bench_${crypto.randomUUID().replaceAll("-", "").slice(0, 12)}`;
  const adminUrl = servers.databaseAdminUrl;
  const server = openDatabase({ url: adminUrl, connectionsMax: 1 });
  await server.execute(`CREATE DATABASE ${name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`);
  await migrate({
    databaseUrl: `${adminUrl}/${name}`,
    folder: join(import.meta.dir, "../../services", service, "migrations"),
  });
  const table = outboxTableName(service);
  const archiveTable = outboxArchiveTableName(service);
  await server.execute(`CREATE USER '${name}'@'%' IDENTIFIED BY '${name}'`);
  await server.execute(`GRANT SELECT, UPDATE, DELETE ON ${name}.${table} TO '${name}'@'%'`);
  await server.execute(`GRANT SELECT, INSERT, DELETE ON ${name}.${archiveTable} TO '${name}'@'%'`);
  const relayUrl = new URL(`${adminUrl}/${name}`);
  relayUrl.username = name;
  relayUrl.password = name;

  const topic = name.replace("_", ".");
  const deadLetterTopic = `${topic}.dlq`;
  const kafka = { brokers: servers.kafkaBrokers, clientId: name, log: silentLogger };
  const admin = await openAdmin(kafka);
  await admin.createTopics(
    [topic, deadLetterTopic].map((it) => ({ topic: it, partitions, replication: 1, config: {} })),
  );

  const database = openDatabase({ url: `${adminUrl}/${name}`, connectionsMax: 4, statementTimeoutMs });
  const recordsCount = async () => (await admin.endOffsets(topic)).reduce((sum, { offset }) => sum + Number(offset), 0);
  const keys = Array.from({ length: keysCount }, () => Bun.randomUUIDv7());
  const rowsOfKeys = keys.map(eventOf);
  let appended = 0;
  const nextRow = (status: string): SqlValue[] => {
    const { aggregateId, type, payload, headers } = rowsOfKeys[appended++ % keysCount] ?? eventOf(name);
    const publishedAt = status === "PUBLISHED" ? new Date() : null;
    return [Bun.randomUUIDv7(), aggregateId, type, payload, headers, status, publishedAt];
  };
  const columns = ["id", "aggregate_id", "type", "payload", "headers", "status", "published_at"];
  const insert = async (on: Queryable, count: number, status: string) => {
    for (let left = count; left > 0; left -= insertRowsMax) {
      const rows = Array.from({ length: Math.min(left, insertRowsMax) }, () => nextRow(status));
      await insertRows(on, table, columns, rows);
    }
  };
  return {
    service,
    table,
    archiveTable,
    topic,
    deadLetterTopic,
    kafka,
    relayUrl: relayUrl.href,
    database,
    async fill(count, status) {
      const perTransaction = status === "PENDING" ? count : publishedRowsOfTransaction;
      for (let left = count; left > 0; left -= perTransaction) {
        await database.transaction((transaction) => insert(transaction, Math.min(left, perTransaction), status));
      }
    },
    async append(on = database) {
      const row = nextRow("PENDING");
      await insertRows(on, table, columns, [row]);
      return String(row[0]);
    },
    recordsCount,
    async drained(wanted) {
      const deadlineMs = performance.now() + drainTimeoutMs;
      const untilIt = async (isSo: () => Promise<boolean>) => {
        while (!(await isSo())) {
          if (performance.now() > deadlineMs) throw new Error(`Not drained within ${drainTimeoutMs} ms.`);
          await sleep(drainPollMs);
        }
      };
      await untilIt(async () => (await recordsCount()) >= wanted);
      await untilIt(async () => {
        const pending = await database.query(`SELECT 1 FROM ${table} WHERE status = 'PENDING' LIMIT 1`);
        return pending.length === 0;
      });
    },
    async empty() {
      for (const it of [table, archiveTable]) await database.execute(`TRUNCATE TABLE ${it}`);
    },
    async drop() {
      await database.close();
      await server.execute(`DROP DATABASE ${name}`);
      await server.execute(`DROP USER '${name}'@'%'`);
      await server.close();
      await admin.deleteTopics([topic, deadLetterTopic]);
      await admin.close();
    },
  };
}

/** An event as the shop appends it, with every header that it has there. */
function eventOf(orderId: string) {
  const message = create(OrderPlacedSchema, {
    orderId,
    lines: Array.from({ length: linesOfEvent }, (_, index) => ({ sku: `sku-000${index + 1}`, quantity: 2 })),
    total: { currencyCode: "EUR", minorUnits: 123_456_789n },
    paymentMethod: "pm_ok",
  });
  const headers = {
    traceparent: childTraceparent(),
    correlationId: crypto.randomUUID(),
    causationId: Bun.randomUUIDv7(),
  };
  return toOutboxRow({ id: "", aggregateId: orderId, message, headers }, eventRegistry);
}
