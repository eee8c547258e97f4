/** Reads orders' books from all sources: databases, topic and the gateway's ledger. */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { KafkaOptions } from "../../../relay/kafka/client.ts";
import { outboxArchiveTableName, outboxTableName } from "../../../relay/tables.ts";
import type { Databases, OrderBooks } from "./books.ts";
import { everyService, type ParkingServices, readDatabases, type Selection } from "./databases.ts";
import { type LedgerBooks, openLedgerBooks } from "./ledger.ts";
import type { AuditContext, OldestEvent } from "./promises/order-check.ts";
import { TopicBooks } from "./topic.ts";

/** Where the auditor reads. */
export interface AuditSources {
  readonly databases: Databases;
  readonly kafka: KafkaOptions;
  readonly topic: string;
  readonly gatewayUrl: string;
}

/** Remembers the topic and the ledger from one reading to the next. */
export class BooksReader {
  readonly databases: Databases;
  readonly topic: TopicBooks;
  readonly ledger: LedgerBooks;

  private constructor(databases: Databases, topic: TopicBooks, ledger: LedgerBooks) {
    this.databases = databases;
    this.topic = topic;
    this.ledger = ledger;
  }

  /** Starts reading the topic. @throws Error if no broker answers. */
  static async open({ databases, kafka, topic, gatewayUrl }: AuditSources): Promise<BooksReader> {
    return new BooksReader(databases, await TopicBooks.open(kafka, topic), openLedgerBooks(gatewayUrl));
  }

  /** Call it before `readBooks`: an inbox that is read later has every event up to the committed offsets. */
  async readContext(overdueAfterMs: number): Promise<AuditContext> {
    await this.topic.catchUp();
    const committed = await everyService((service) => this.topic.committed(service));
    const oldest = await everyService((service) => readOldestEvent(this.databases, service));
    return { overdueAfterMs, retainedSince: this.topic.retainedSince(), committed, oldest };
  }

  /** Reads the databases before the topic, so that an event that they show as published is on the topic as it is read. */
  async readBooks(parking: ParkingServices, selection: Selection): Promise<readonly OrderBooks[]> {
    const rows = await readDatabases(this.databases, parking, selection);
    await Promise.all([
      this.topic.catchUp(),
      "orderIds" in selection ? this.ledger.refresh(selection.orderIds) : this.ledger.catchUp(),
    ]);
    return Array.from(rows.values(), (row) => ({
      ...row,
      topic: this.topic.events.of(row.orderId),
      ledger: this.ledger.of(row.orderId),
    }));
  }

  async close(): Promise<void> {
    await this.topic.close();
  }
}

async function readOldestEvent(databases: Databases, service: ServiceName): Promise<OldestEvent> {
  const first = (table: string) =>
    `(SELECT event.seq AS sequence, event.occurred_at AS occurredAt FROM ${table} AS event ORDER BY event.seq LIMIT 1)`;
  const [row] = await databases[service].query<{ sequence: number | string; occurredAt: Date }>(
    `${first(outboxTableName(service))} UNION ALL ${first(outboxArchiveTableName(service))} ORDER BY sequence LIMIT 1`,
  );
  if (row === undefined) return { sequence: Number.POSITIVE_INFINITY, occurredAt: new Date(0) };
  return { sequence: Number(row.sequence), occurredAt: row.occurredAt };
}
