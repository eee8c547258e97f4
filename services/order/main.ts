import { eventRegistry, sagaTopic, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startConsumer } from "../../relay/inbox/consumer.ts";
import { createInbox } from "../../relay/inbox/inbox.ts";
import { startInboxPruning } from "../../relay/inbox/pruning.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { consumeTopic } from "../../relay/kafka/consumer.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createMetrics, serveHealth } from "../kit/health.ts";
import { createLogger } from "../kit/log.ts";
import { serveRpc } from "../kit/server.ts";
import { closeOnSignal } from "../kit/shutdown.ts";
import { readOrderConfig } from "./config.ts";
import { startDeadlineSweep } from "./deadline-sweep.ts";
import { handledTypes, orderHandler } from "./handlers.ts";
import { createSagaMetrics } from "./metrics.ts";
import { createOrderPlacer } from "./place-orders.ts";
import { loadPriceList } from "./prices.ts";
import { routes } from "./rpc.ts";
import { createTopicProgress } from "./topic-progress.ts";
import { createOrderWatch } from "./watch.ts";

const config = readOrderConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };
const topic = sagaTopic;
const newId = () => Bun.randomUUIDv7();
const onCrash = (error: Error) => {
  log.fatal({ err: error }, "the consumer has stopped");
  process.exit(1);
};

// A flood of orders must not starve the sagas under way: each side has connections of its own.
const rpcDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
const sagaDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
const hints = openHintSender("order", config.relayHints);
const outbox = createOutbox({ service: "order", registry: eventRegistry });
const watch = createOrderWatch({ database: rpcDatabase, log, metrics });
const prices = loadPriceList(rpcDatabase, log);
const sagas = createSagaMetrics({ database: sagaDatabase, log, metrics });
const placer = createOrderPlacer({
  database: rpcDatabase,
  outbox,
  deadlineMs: config.deadlineMs,
  onPlaced(count) {
    hints.send();
    sagas.started(count);
  },
});
const onChanged = (orderIds: readonly string[]) => {
  hints.send();
  watch.hint(orderIds);
};
const commands = { outbox, newId, sagas, onChanged };

const inbox = createInbox({
  service: "order",
  database: sagaDatabase,
  registry: eventRegistry,
  handles: handledTypes,
  records: "all",
  handle: orderHandler({ newId, sagas }),
  urgentToPublish: urgentTypes,
  outbox,
  hints,
  newId,
  log,
  metrics,
  onCommitted: (events) => watch.hint(events.map(({ envelope }) => envelope.aggregateId)),
});
const consumer = await startConsumer({
  service: "order",
  topic,
  kafka,
  inbox,
  urgentToHandle: urgentTypesFor("order"),
  log,
  metrics,
  onCrash,
});

// Another instance may handle what is watched here: every record on the topic is a hint. What this instance handles is
// hinted at its commit, so these may come a little later, and cost the less.
const watchGroup = `order-watch-${config.instance}-${newId()}`;
const watchConsumer = await consumeTopic({
  ...kafka,
  groupId: watchGroup,
  topic,
  from: "latest",
  fetchWaitMs: 50,
  commitOffsets: false,
  partitionsConcurrently: 12,
  batchSizeMax: 1_000,
  async onBatch(records) {
    watch.hint(records.flatMap(({ key }) => (key === null ? [] : [new TextDecoder().decode(key)])));
  },
  onAssigned: watch.hintAll,
  onCrash,
});

const deadlineSweep = startDeadlineSweep({
  commands: { ...commands, database: sagaDatabase },
  topicProgress: createTopicProgress({ kafka, topic, groupId: "order" }),
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
    commands: { ...commands, database: rpcDatabase },
    newId,
  }),
  log,
});
const pruning = startInboxPruning({
  service: "order",
  database: sagaDatabase,
  kafka,
  topic,
  archiveRetentionHours: config.archiveRetentionHours,
  log,
});
const health = serveHealth({
  host: config.host,
  port: config.healthPort,
  metrics,
  checks: {
    database: async () => (await rpcDatabase.query("SELECT 1")).length === 1,
    broker: () => consumer.isReady() && watchConsumer.isReady(),
    inbox: () => !inbox.isStopped(),
    prices: prices.isLoaded,
  },
});
log.info({ http: server.httpPort, grpc: server.grpcPort }, "ready to serve");

closeOnSignal({
  log,
  async close() {
    watch.close();
    prices.close();
    await Promise.all([
      server.close(),
      consumer.close(),
      watchConsumer.close(),
      deadlineSweep.close(),
      pruning.close(),
    ]);
    await placer.close();
    hints.close();
    await Promise.allSettled([rpcDatabase.close(), sagaDatabase.close(), health.close(), deleteGroup()]);
  },
});

/** The group was for this run alone. Where the broker is away, it goes by itself: it has committed nothing. */
async function deleteGroup(): Promise<void> {
  const deleting = (async () => {
    const admin = await openAdmin(kafka);
    await admin.deleteGroup(watchGroup);
    await admin.close();
  })();
  await Promise.race([deleting, Bun.sleep(1_000)]);
}
