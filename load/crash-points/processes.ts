/** The delivery code as a sweep runs it: in the process that is killed, and again in the one that comes after it. */
import { create } from "@bufbuild/protobuf";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { type OrderCompleted, OrderCompletedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { startConsumer } from "../../relay/inbox/consumer.ts";
import { createInbox, type Inbox } from "../../relay/inbox/inbox.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import type { TopicConsumer } from "../../relay/kafka/consumer.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { runArchive } from "../../relay/outbox/archive.ts";
import { createRelayMetrics } from "../../relay/outbox/metrics.ts";
import { claimOwnership } from "../../relay/outbox/ownership.ts";
import { type RelaySource, startRelaySource } from "../../relay/outbox/relay.ts";
import { openOutboxStore } from "../../relay/outbox/store.ts";
import { testKafka } from "../../relay/testing.ts";
import type { Database } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { insertStatements } from "../../services/kit/statements.ts";
import { archiveDatabase, consumerInbox, type Death, inboxDatabase, relayPorts } from "./points.ts";

/** Where a process works. */
export interface Place {
  readonly databaseUrl: string;
  readonly schema: string;
  readonly topic: string;
  readonly group: string;
}

export const outboxTable = "order_outbox_event";
export const archiveTable = "order_outbox_event_archive";
export const eventType = "shop.order.v1.OrderCompleted";
/** Whose tables the consumer uses; its handler's effect is a row in a table of the sweep's, and an event. */
export const service = "inventory";
const log = silentLogger;

/** The records on a topic. */
export async function openTopicSize(topic: string): Promise<{ size(): Promise<number>; close(): Promise<void> }> {
  const admin = await openAdmin(testKafka());
  return {
    async size() {
      return (await admin.endOffsets(topic)).reduce((sum, { offset }) => sum + Number(offset), 0);
    },
    close: admin.close,
  };
}

/** Starts the relay; with `death`, to its end. */
export async function startRelay(place: Place, database: Database, death?: Death): Promise<RelaySource> {
  const { databaseUrl, schema, topic } = place;
  const ports = {
    store: openOutboxStore({ databaseUrl, table: outboxTable }),
    openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
  };
  return startRelaySource({
    name: "order",
    topic,
    ceSource: "/shop/order",
    encoding: "protobuf",
    registry: eventRegistry,
    ownership: claimOwnership({ databaseUrl, schema, table: outboxTable, log }),
    log,
    metrics: createRelayMetrics(new Metrics()),
    pollIntervalMs: 50,
    ...(death === undefined
      ? ports
      : relayPorts(death, {
          ...ports,
          table: outboxTable,
          probe: database,
          topicSize: (await openTopicSize(topic)).size,
        })),
  });
}

/** Archives all that is published. */
export async function archiveAll(database: Database, death?: Death): Promise<void> {
  await runArchive({
    database: death === undefined ? database : archiveDatabase(death, database),
    outboxTable,
    archiveTable,
    olderThanMs: 60_000,
    batchSize: 7,
    pauseMs: 0,
  });
}

/** Starts a consumer. Its inbox publishes an event for each that it handles. */
export async function startInboxConsumer(
  place: Place,
  database: Database,
  death?: Death,
): Promise<TopicConsumer & { duplicates(): Promise<number> }> {
  const metrics = new Metrics();
  let underWay: readonly string[] = [];
  const ids = () => underWay;
  const inbox: Inbox = createInbox<OrderCompleted>({
    service,
    database: death === undefined ? database : inboxDatabase(death, database, ids),
    registry: eventRegistry,
    handles: new Set([eventType]),
    records: "handled",
    async handle(_, events) {
      underWay = events.map(({ envelope }) => envelope.id);
      return {
        writes: insertStatements(
          "effect",
          ["event_id", "aggregate_id"],
          events.map(({ envelope, message }) => [envelope.id, message.orderId]),
        ),
        publish: events.map(({ message }) => ({
          id: Bun.randomUUIDv7(),
          aggregateId: message.orderId,
          message: create(OrderCompletedSchema, { orderId: message.orderId }),
          headers: {},
        })),
        ignored: [],
      };
    },
    outbox: createOutbox({ service, registry: eventRegistry }),
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId: () => Bun.randomUUIDv7(),
    log,
    metrics,
  });
  const consumer = await startConsumer({
    service: place.group,
    topic: place.topic,
    kafka: testKafka(),
    inbox: death === undefined ? inbox : consumerInbox(death, inbox, ids),
    log,
    metrics,
    onCrash: (error) => {
      throw error;
    },
    batchSizeMax: 10,
  });
  return {
    ...consumer,
    async duplicates() {
      const counted = await metrics.getSingleMetric("inbox_events_total")?.get();
      return counted?.values.find(({ labels }) => labels.outcome === "duplicate")?.value ?? 0;
    },
  };
}
