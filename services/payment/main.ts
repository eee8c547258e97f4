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
import { readPaymentConfig } from "./config.ts";
import { createGatewayClient } from "./gateway-client.ts";
import { handledTypes, paymentHandler } from "./handlers.ts";
import { startPaymentWorker } from "./worker.ts";

const config = readPaymentConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };
const newId = () => Bun.randomUUIDv7();

const database = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
const workerDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 3 });
const hints = openHintSender("payment", config.relayHints);
const outbox = createOutbox({ service: "payment", registry: eventRegistry });
const gateway = createGatewayClient({ url: config.gatewayUrl, timeoutMs: 2_000 });
const worker = startPaymentWorker({ database: workerDatabase, gateway, outbox, hints, newId, log, metrics });

const inbox = createInbox({
  service: "payment",
  database,
  registry: eventRegistry,
  handles: handledTypes,
  records: "handled",
  handle: paymentHandler({ newId, calls: worker }),
  urgentToPublish: urgentTypes,
  outbox,
  hints,
  newId,
  log,
  metrics,
});
const consumer = await startConsumer({
  service: "payment",
  topic: sagaTopic,
  kafka,
  inbox,
  urgentToHandle: urgentTypesFor("payment"),
  log,
  metrics,
  onCrash(error) {
    log.fatal({ err: error }, "the consumer has stopped");
    process.exit(1);
  },
});
const pruning = startInboxPruning({
  service: "payment",
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
    await Promise.all([consumer.close(), worker.close(), pruning.close()]);
    hints.close();
    await Promise.allSettled([database.close(), workerDatabase.close(), health.close()]);
  },
});
