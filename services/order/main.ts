import { eventRegistry, sagaTopic, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startInbox } from "../../relay/inbox/start-inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createMetrics, serveHealth } from "../kit/health.ts";
import { createLogger } from "../kit/log.ts";
import { serveRpc } from "../kit/server.ts";
import { closeOnSignal, exitOnConsumerCrash } from "../kit/shutdown.ts";
import { readOrderConfig } from "./config.ts";
import { startDeadlineSweep } from "./deadline-sweep.ts";
import { handledTypes, orderHandler } from "./handlers.ts";
import { createSagaMetrics } from "./metrics.ts";
import { createOrderPlacer } from "./place-orders.ts";
import { startPriceList } from "./prices.ts";
import { routes } from "./rpc.ts";
import { createTopicProgress } from "./topic-progress.ts";
import { createOrderWatch } from "./watch.ts";
import { startWatchFeed } from "./watch-feed.ts";

const config = readOrderConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };
const newId = () => Bun.randomUUIDv7();

// New orders must not starve the sagas in flight, so the RPCs and the sagas have separate connections.
const rpcDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
const sagaDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
const hints = openHintSender("order", config.relayHints);
const outbox = createOutbox({ service: "order", registry: eventRegistry });
const watch = createOrderWatch({ database: rpcDatabase, log, metrics });
const prices = startPriceList(rpcDatabase, log);
const sagaMetrics = createSagaMetrics({ database: sagaDatabase, log, metrics });
const placer = createOrderPlacer({
  database: rpcDatabase,
  outbox,
  deadlineMs: config.deadlineMs,
  onPlaced(count) {
    hints.send();
    sagaMetrics.recordPlaced(count);
  },
});
const onChanged = (orderIds: readonly string[]) => {
  hints.send();
  watch.hint(orderIds);
};
const commandDeps = { outbox, newId, sagaMetrics, onChanged };

const inbox = await startInbox({
  service: "order",
  database: sagaDatabase,
  kafka,
  topic: sagaTopic,
  registry: eventRegistry,
  handles: handledTypes,
  // Order's inbox keeps every event of the topic, its own included: the audit and `ops stuck` read the timeline there.
  records: "all",
  handle: orderHandler({ newId, sagaMetrics }),
  urgentToHandle: urgentTypesFor("order"),
  outbox,
  urgentToPublish: urgentTypes,
  hints,
  archiveRetentionHours: config.archiveRetentionHours,
  onCommitted: (events) => watch.hint(events.map(({ envelope }) => envelope.aggregateId)),
  newId,
  log,
  metrics,
});
const watchFeed = startWatchFeed({
  kafka,
  topic: sagaTopic,
  groupId: `order-watch-${config.instance}-${newId()}`,
  watch,
  onCrash: exitOnConsumerCrash(log),
});
const deadlineSweep = startDeadlineSweep({
  commandDeps: { ...commandDeps, database: sagaDatabase },
  topicProgress: createTopicProgress({ kafka, topic: sagaTopic, groupId: "order" }),
  log,
  metrics,
});

const server = await serveRpc({
  host: config.host,
  httpPort: config.httpPort,
  grpcPort: config.grpcPort,
  routes: routes({
    placer,
    prices,
    database: rpcDatabase,
    watch,
    commandDeps: { ...commandDeps, database: rpcDatabase },
    newId,
  }),
  log,
});
const health = serveHealth({
  host: config.host,
  port: config.healthPort,
  metrics,
  checks: {
    ...inbox.checks,
    // Replaces the inbox's own check: both pools reach the same server.
    database: async () => (await rpcDatabase.query("SELECT 1")).length === 1,
    broker: async () => (await inbox.checks.broker()) && watchFeed.isReady(),
    prices: prices.isLoaded,
  },
});
log.info({ http: server.httpPort, grpc: server.grpcPort }, "started");

closeOnSignal({
  log,
  async close() {
    // First the watch, since open streams would hold up the server. Last the hints, since the placer's last commit sends one.
    watch.close();
    prices.close();
    await Promise.all([server.close(), inbox.close(), watchFeed.close(), deadlineSweep.close()]);
    await placer.close();
    hints.close();
    await Promise.allSettled([rpcDatabase.close(), sagaDatabase.close(), health.close(), watchFeed.deleteGroup()]);
  },
});
