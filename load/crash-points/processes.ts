/** The delivery code as it runs here: with a crash in the process that is killed, and without in the one that follows. */
import { create } from "@bufbuild/protobuf";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { type OrderCompleted, OrderCompletedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { startConsumer } from "../../relay/inbox/consumer.ts";
import type { BatchHandler } from "../../relay/inbox/handler.ts";
import { createInbox } from "../../relay/inbox/inbox.ts";
import type { TopicConsumer } from "../../relay/kafka/consumer.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { runArchive } from "../../relay/outbox/archive.ts";
import { createRelayMetrics } from "../../relay/outbox/metrics.ts";
import { claimOwnership } from "../../relay/outbox/ownership.ts";
import { type RelaySource, startRelaySource } from "../../relay/outbox/start-relay.ts";
import { openOutboxStore } from "../../relay/outbox/store.ts";
import { testKafka } from "../../relay/testing.ts";
import type { Database } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { insertStatements } from "../../services/kit/statements.ts";
import type { Crash } from "./points.ts";
import { crashingArchiveDatabase, crashingInbox, crashingInboxDatabase } from "./ports/database.ts";
import { CrashingRelayPorts } from "./ports/relay.ts";
import { openTopicSize } from "./topics.ts";

/** Where a process works. */
export interface Place {
  readonly databaseUrl: string;
  readonly schema: string;
  readonly topic: string;
  readonly group: string;
}

/** The service whose outbox the relay and the archive work on. */
export const publisher = "order";
export const outboxTable = `${publisher}_outbox_event`;
export const archiveTable = `${publisher}_outbox_event_archive`;
/** The service whose inbox the consumer uses. */
export const consumer = "inventory";
export const eventType = "shop.order.v1.OrderCompleted";
const log = silentLogger;

/** Starts the relay. With `crash`, it works until it dies. */
export async function startRelay(place: Place, database: Database, crash?: Crash): Promise<RelaySource> {
  const { databaseUrl, schema, topic } = place;
  const ports = {
    store: openOutboxStore({ databaseUrl, table: outboxTable }),
    openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
    table: outboxTable,
    probe: database,
  };
  const { store, openProducer: open } =
    crash === undefined
      ? ports
      : new CrashingRelayPorts(crash, { ...ports, topicSize: (await openTopicSize(topic)).size });
  return startRelaySource({
    name: publisher,
    topic,
    ceSource: "/shop/order",
    encoding: "protobuf",
    registry: eventRegistry,
    ownership: claimOwnership({ databaseUrl, schema, table: outboxTable, log }),
    log,
    metrics: createRelayMetrics(new Metrics()),
    pollIntervalMs: 50,
    store,
    openProducer: open,
  });
}

/** Archives everything that is published. */
export async function archiveAll(database: Database, crash?: Crash): Promise<void> {
  await runArchive({
    database: crash === undefined ? database : crashingArchiveDatabase(crash, database),
    outboxTable,
    archiveTable,
    olderThanMs: 60_000,
    batchSize: 7,
    pauseMs: 0,
  });
}

/** Starts a consumer with an inbox. `duplicates` returns how many events its inbox has dropped as duplicates. */
export async function startInboxConsumer(
  place: Place,
  database: Database,
  crash?: Crash,
): Promise<TopicConsumer & { duplicates(): Promise<number> }> {
  const metrics = new Metrics();
  const handler = createHandler();
  const inbox = createInbox<OrderCompleted>({
    service: consumer,
    database: crash === undefined ? database : crashingInboxDatabase(crash, database, handler.currentIds),
    registry: eventRegistry,
    handles: new Set([eventType]),
    records: "handled",
    keyOf: ({ orderId }) => orderId,
    handle: handler.handle,
    outbox: createOutbox({ service: consumer, registry: eventRegistry }),
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId: () => Bun.randomUUIDv7(),
    log,
    metrics,
  });
  const started = await startConsumer({
    service: place.group,
    topic: place.topic,
    kafka: testKafka(),
    inbox: crash === undefined ? inbox : crashingInbox(crash, inbox, handler.currentIds),
    log,
    metrics,
    onCrash: (error) => {
      throw error;
    },
    batchSizeMax: 10,
  });
  return {
    ...started,
    async duplicates() {
      const counted = await metrics.getSingleMetric("inbox_events_total")?.get();
      return counted?.values.find(({ labels }) => labels.outcome === "duplicate")?.value ?? 0;
    },
  };
}

/** Handles events like a service: it writes each one to the table `effect`, and publishes an event for it. */
function createHandler(): {
  readonly handle: BatchHandler<OrderCompleted>;
  readonly currentIds: () => readonly string[];
} {
  let currentIds: readonly string[] = [];
  return {
    currentIds: () => currentIds,
    async handle(_, events) {
      currentIds = events.map(({ envelope }) => envelope.id);
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
  };
}
