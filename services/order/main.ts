import { eventRegistry, sagaTopic, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startInbox } from "../../relay/inbox/start-inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createMetrics, serveHealth } from "../kit/health.ts";
import { createLogger } from "../kit/log.ts";
import { serveRpc } from "../kit/server.ts";
import { closeOnSignal, exitOnConsumerCrash, exitOnRefusedSession } from "../kit/shutdown.ts";
import { openOrderApi } from "./api.ts";
import { readOrderConfig } from "./config.ts";
import { startDeadlineSweep } from "./deadline-sweep.ts";
import { handledTypes, orderHandler } from "./handlers.ts";
import { createSagaMetrics } from "./metrics.ts";
import { createTopicProgress } from "./topic-progress.ts";
import { startWatchFeed } from "./watch-feed.ts";

const config = readOrderConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };
const newId = () => Bun.randomUUIDv7();

// New orders must not starve the sagas in flight, so the sagas have connections of their own; api.ts has the others.
const sagaDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
exitOnRefusedSession(sagaDatabase, log);
const hints = openHintSender("order", config.relayHints);
const outbox = createOutbox({ service: "order", registry: eventRegistry });
const sagaMetrics = createSagaMetrics({ database: sagaDatabase, log, metrics });
const api = openOrderApi({
  databaseUrl: config.databaseUrl,
  outbox,
  hints,
  sagaMetrics,
  deadlineMs: config.deadlineMs,
  newId,
  log,
  metrics,
});

const inbox = await startInbox({
  service: "order",
  database: sagaDatabase,
  kafka,
  topic: sagaTopic,
  registry: eventRegistry,
  handles: handledTypes,
  // Order's inbox keeps every event of the topic, its own included: the audit and `ops stuck` read the timeline there.
  records: "all",
  keyOf: ({ orderId }) => orderId,
  handle: orderHandler({ newId, sagaMetrics }),
  urgentToHandle: urgentTypesFor("order"),
  outbox,
  urgentToPublish: urgentTypes,
  hints,
  archiveRetentionHours: config.archiveRetentionHours,
  onCommitted: (events) => api.watch.mayHaveChanged(events.map(({ envelope }) => envelope.aggregateId)),
  newId,
  log,
  metrics,
});
const watchFeed = startWatchFeed({
  kafka,
  topic: sagaTopic,
  groupId: `order-watch-${config.instance}-${newId()}`,
  watch: api.watch,
  onCrash: exitOnConsumerCrash(log),
});
const deadlineSweep = startDeadlineSweep({
  commandDeps: { ...api.commandDeps, database: sagaDatabase },
  topicProgress: createTopicProgress({ kafka, topic: sagaTopic, groupId: "order" }),
  log,
  metrics,
});

const server = await serveRpc({
  host: config.host,
  httpPort: config.httpPort,
  grpcPort: config.grpcPort,
  routes: api.routes,
  log,
});
const health = serveHealth({
  host: config.host,
  port: config.healthPort,
  metrics,
  checks: {
    ...inbox.checks,
    // Replaces the inbox's own check: all pools reach the same server.
    database: async () => (await api.databases.placements.query("SELECT 1")).length === 1,
    broker: async () => (await inbox.checks.broker()) && watchFeed.isReady(),
    prices: api.arePricesLoaded,
  },
});
log.info({ http: server.httpPort, grpc: server.grpcPort }, "started");

closeOnSignal({
  log,
  async close() {
    // First the streams, which would hold up the server. Last the hints, since the last placement sends one.
    api.stop();
    await Promise.all([server.close(), inbox.close(), watchFeed.close(), deadlineSweep.close()]);
    await Promise.allSettled([api.close(), sagaDatabase.close(), health.close(), watchFeed.deleteGroup()]);
    hints.close();
  },
});
