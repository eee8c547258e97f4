import { eventRegistry, sagaTopic, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startInbox } from "../../relay/inbox/start-inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createMetrics, serveHealth } from "../kit/health.ts";
import { createLogger } from "../kit/log.ts";
import { closeOnSignal, exitOnRefusedSession } from "../kit/shutdown.ts";
import { readInventoryConfig } from "./config.ts";
import { handledTypes, inventoryHandler } from "./handlers.ts";

const config = readInventoryConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const metrics = createMetrics(config.instance);
const newId = () => Bun.randomUUIDv7();
const database = openDatabase({ url: config.databaseUrl, connectionsMax: 5 });
exitOnRefusedSession(database, log);
const hints = openHintSender("inventory", config.relayHints);

const inbox = await startInbox({
  service: "inventory",
  database,
  kafka: { brokers: config.kafkaBrokers, clientId: config.instance, log },
  topic: sagaTopic,
  registry: eventRegistry,
  handles: handledTypes,
  records: "handled",
  keyOf: ({ orderId }) => orderId,
  handle: inventoryHandler({ newId }),
  urgentToHandle: urgentTypesFor("inventory"),
  outbox: createOutbox({ service: "inventory", registry: eventRegistry }),
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
    await inbox.close();
    hints.close();
    await Promise.allSettled([database.close(), health.close()]);
  },
});
