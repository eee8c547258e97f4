import { eventRegistry, sagaTopic, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startConsumer } from "../../relay/inbox/consumer.ts";
import { createInbox } from "../../relay/inbox/inbox.ts";
import { startInboxPruning } from "../../relay/inbox/pruning.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createMetrics, serveHealth } from "../kit/health.ts";
import { createLogger } from "../kit/log.ts";
import { closeOnSignal } from "../kit/shutdown.ts";
import { readInventoryConfig } from "./config.ts";
import { handledTypes, inventoryHandler } from "./handlers.ts";

const config = readInventoryConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };
const newId = () => Bun.randomUUIDv7();

const database = openDatabase({ url: config.databaseUrl, connectionsMax: 5 });
const hints = openHintSender("inventory", config.relayHints);
const inbox = createInbox({
  service: "inventory",
  database,
  registry: eventRegistry,
  handles: handledTypes,
  records: "handled",
  handle: inventoryHandler({ newId }),
  urgentToPublish: urgentTypes,
  outbox: createOutbox({ service: "inventory", registry: eventRegistry }),
  hints,
  newId,
  log,
  metrics,
});
const consumer = await startConsumer({
  service: "inventory",
  topic: sagaTopic,
  kafka,
  inbox,
  urgentToHandle: urgentTypesFor("inventory"),
  log,
  metrics,
  onCrash(error) {
    log.fatal({ err: error }, "the consumer has stopped");
    process.exit(1);
  },
});
const pruning = startInboxPruning({
  service: "inventory",
  database: database,
  kafka,
  topic: sagaTopic,
  archiveRetentionHours: config.archiveRetentionHours,
  log,
});
const health = serveHealth({
  host: config.host,
  port: config.healthPort,
  metrics,
  checks: {
    database: async () => (await database.query("SELECT 1")).length === 1,
    broker: consumer.isReady,
    inbox: () => !inbox.isStopped(),
  },
});
log.info({ health: health.port }, "ready to serve");

closeOnSignal({
  log,
  async close() {
    await Promise.all([consumer.close(), pruning.close()]);
    hints.close();
    await Promise.allSettled([database.close(), health.close()]);
  },
});
