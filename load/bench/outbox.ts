/** The source that a benchmark relays: a schema with Order's own outbox, an account for the relay, and a topic. */
import { join } from "node:path";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { HostPort } from "../../services/kit/config.ts";
import { type Database, insertRows, openDatabase, type Queryable } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { migrate } from "../../services/kit/migrate.ts";
import { createBenchRows, rowColumns } from "./rows.ts";

/** Addresses of the benchmark's servers. */
export interface BenchServers {
  /** A user who may create databases and users. */
  readonly databaseAdminUrl: string;
  readonly kafkaBrokers: readonly HostPort[];
}

const service = "order";
const table = outboxTableName(service);
const archiveTable = outboxArchiveTableName(service);
const keysDefault = 10_000;
const partitions = 12;
const insertRowsMax = 1_000;
/** The undo log of more rows in one transaction would not fit into the server's buffers. */
const publishedRowsPerTransaction = 20_000;
const statementTimeoutMs = 60_000;
const drainTimeoutMs = 600_000;
const drainPollMs = 250;

interface Connections {
  /** As an administrator, with no schema chosen. */
  readonly server: Database;
  /** As an administrator, on the benchmark's schema. */
  readonly database: Database;
  readonly admin: KafkaAdmin;
}

/** An outbox and a topic that nothing else uses. */
export class BenchOutbox {
  readonly service = service;
  readonly table = table;
  readonly archiveTable = archiveTable;
  readonly topic: string;
  readonly deadLetterTopic: string;
  readonly kafka: KafkaOptions;
  /** For the relay's account. It has the same rights on the two tables as the relay's account of the shop, and no others. */
  readonly relayUrl: string;
  /** For an administrator. */
  readonly database: Database;
  readonly #name: string;
  readonly #connections: Connections;
  readonly #nextRow: ReturnType<typeof createBenchRows>;

  private constructor(options: {
    readonly name: string;
    readonly relayUrl: string;
    readonly kafka: KafkaOptions;
    readonly connections: Connections;
    readonly keysCount: number;
  }) {
    this.#name = options.name;
    [this.topic, this.deadLetterTopic] = topicsOf(options.name);
    this.kafka = options.kafka;
    this.relayUrl = options.relayUrl;
    this.#connections = options.connections;
    this.database = options.connections.database;
    this.#nextRow = createBenchRows(options.keysCount);
  }

  /** Creates schema, account and topics. The events take turns over `keys` keys, by default 10,000. */
  static async create(
    servers: BenchServers,
    { keys: keysCount = keysDefault }: { readonly keys?: number } = {},
  ): Promise<BenchOutbox> {
    const name = `bench_${crypto.randomUUID().replaceAll("-", "").slice(0, 12)}`;
    const schemaUrl = `${servers.databaseAdminUrl}/${name}`;
    const server = openDatabase({ url: servers.databaseAdminUrl, connectionsMax: 1 });
    await server.execute(`CREATE DATABASE ${name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`);
    await migrate({ databaseUrl: schemaUrl, folder: join(import.meta.dir, "../../services", service, "migrations") });
    const relayUrl = await createRelayAccount(server, schemaUrl, name);
    const kafka = { brokers: servers.kafkaBrokers, clientId: name, log: silentLogger };
    const admin = await openAdmin(kafka);
    await admin.createTopics(topicsOf(name).map((topic) => ({ topic, partitions, replication: 1, config: {} })));
    const database = openDatabase({ url: schemaUrl, connectionsMax: 4, statementTimeoutMs });
    return new BenchOutbox({ name, relayUrl, kafka, connections: { server, database, admin }, keysCount });
  }

  /** Appends `count` events: pending ones in one transaction, published ones in several. */
  async fill(count: number, status: "PENDING" | "PUBLISHED"): Promise<void> {
    const perTransaction = status === "PENDING" ? count : publishedRowsPerTransaction;
    for (let left = count; left > 0; left -= perTransaction) {
      await this.database.transaction((transaction) =>
        this.#insert(transaction, Math.min(left, perTransaction), status),
      );
    }
  }

  /** Appends one event, commits, and returns the event's id. */
  async append(): Promise<string> {
    const row = this.#nextRow("PENDING");
    await insertRows(this.database, table, rowColumns, [row]);
    return String(row[0]);
  }

  /** How many records the topic holds. */
  async recordsCount(): Promise<number> {
    const ends = await this.#connections.admin.endOffsets(this.topic);
    return ends.reduce((sum, { offset }) => sum + Number(offset), 0);
  }

  /**
   * Resolves once the topic holds `recordsCount` records and no row is pending. It polls the broker, which is cheap, and
   * not the relay: reading its metrics would take CPU from what is measured.
   * @throws Error after 10 minutes.
   */
  async untilDrained(recordsCount: number): Promise<void> {
    const deadlineMs = performance.now() + drainTimeoutMs;
    const until = async (holds: () => Promise<boolean>) => {
      while (!(await holds())) {
        if (performance.now() > deadlineMs) throw new Error(`Not drained within ${drainTimeoutMs} ms.`);
        await sleep(drainPollMs);
      }
    };
    await until(async () => (await this.recordsCount()) >= recordsCount);
    await until(async () => {
      const pending = await this.database.query(`SELECT 1 FROM ${table} WHERE status = 'PENDING' LIMIT 1`);
      return pending.length === 0;
    });
  }

  /** Empties outbox and archive. */
  async empty(): Promise<void> {
    for (const it of [table, archiveTable]) await this.database.execute(`TRUNCATE TABLE ${it}`);
  }

  /** Removes schema, account and topics from the servers and closes the connections. */
  async drop(): Promise<void> {
    const { server, database, admin } = this.#connections;
    await database.close();
    await server.execute(`DROP DATABASE ${this.#name}`);
    await server.execute(`DROP USER '${this.#name}'@'%'`);
    await server.close();
    await admin.deleteTopics([this.topic, this.deadLetterTopic]);
    await admin.close();
  }

  async #insert(on: Queryable, count: number, status: string): Promise<void> {
    for (let left = count; left > 0; left -= insertRowsMax) {
      const rows = Array.from({ length: Math.min(left, insertRowsMax) }, () => this.#nextRow(status));
      await insertRows(on, table, rowColumns, rows);
    }
  }
}

function topicsOf(name: string): readonly [topic: string, deadLetterTopic: string] {
  const topic = name.replace("_", ".");
  return [topic, `${topic}.dlq`];
}

/** Creates the relay's account with the rights that it has in the shop; returns its URL. The password is the name. */
async function createRelayAccount(server: Database, schemaUrl: string, name: string): Promise<string> {
  await server.execute(`CREATE USER '${name}'@'%' IDENTIFIED BY '${name}'`);
  await server.execute(`GRANT SELECT, UPDATE, DELETE ON ${name}.${table} TO '${name}'@'%'`);
  await server.execute(`GRANT SELECT, INSERT, DELETE ON ${name}.${archiveTable} TO '${name}'@'%'`);
  const url = new URL(schemaUrl);
  url.username = name;
  url.password = name;
  return url.href;
}
