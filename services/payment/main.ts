import { eventRegistry, sagaTopic, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startInbox } from "../../relay/inbox/start-inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createMetrics, serveHealth } from "../kit/health.ts";
import { createLogger } from "../kit/log.ts";
import { closeOnSignal, exitOnRefusedSession } from "../kit/shutdown.ts";
import { readPaymentConfig } from "./config.ts";
import { createGatewayClient } from "./gateway-client.ts";
import { handledTypes, paymentHandler } from "./handlers.ts";
import { startPaymentWorker } from "./worker.ts";

const config = readPaymentConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const newId = () => Bun.randomUUIDv7();
// The inbox and the gateway worker must not wait for each other: each has connections of its own.
const database = openDatabase({ url: config.databaseUrl, connectionsMax: 4 });
const workerDatabase = openDatabase({ url: config.databaseUrl, connectionsMax: 3 });
exitOnRefusedSession(database, log);
const hints = openHintSender("payment", config.relayHints);
const outbox = createOutbox({ service: "payment", registry: eventRegistry });
const gatewayClient = createGatewayClient({ url: config.gatewayUrl, timeoutMs: 2_000 });
const worker = startPaymentWorker({ database: workerDatabase, gatewayClient, outbox, hints, newId, log, metrics });

const inbox = await startInbox({
  service: "payment",
  database,
  kafka: { brokers: config.kafkaBrokers, clientId: config.instance, log },
  topic: sagaTopic,
  registry: eventRegistry,
  handles: handledTypes,
  records: "handled",
  keyOf: ({ orderId }) => orderId,
  handle: paymentHandler({ newId, worker }),
  urgentToHandle: urgentTypesFor("payment"),
  outbox,
  urgentToPublish: urgentTypes,
  hints,
  archiveRetentionHours: config.archiveRetentionHours,
  newId,
  log,
  metrics,
});
const health = serveHealth({ host: config.host, port: config.healthPort, metrics, checks: inbox.checks });
log.info({ health: health.port }, "started");

closeOnSignal({
  log,
  async close() {
    await Promise.all([inbox.close(), worker.close()]);
    hints.close();
    await Promise.allSettled([database.close(), workerDatabase.close(), health.close()]);
  },
});
