/**
 * An inventory that freezes in the middle of its first batch, if FREEZES is true: it stops itself (SIGSTOP) after its handler
 * has locked and read the stock, and before it writes. When it is continued (SIGCONT), it goes on as if no time had passed. It
 * is a separate program because the whole process must freeze, with its timers and sockets.
 */
import { Registry } from "prom-client";
import { eventRegistry, urgentTypes, urgentTypesFor } from "../../proto/event-table.ts";
import { startInbox } from "../../relay/inbox/start-inbox.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { environment, hostPorts, readConfig, text } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { createLogger } from "../kit/log.ts";
import type { InventoryMessage } from "./domain.ts";
import { handledTypes, inventoryHandler } from "./handlers.ts";

const config = readConfig(environment(), {
  brokers: hostPorts("KAFKA_BROKERS"),
  databaseUrl: text("DATABASE_URL"),
  topic: text("TOPIC"),
  freezes: text("FREEZES"),
});
const newId = () => Bun.randomUUIDv7();
const log = createLogger({ instance: `inventory-${process.pid}`, level: "info" });
const handle = inventoryHandler({ newId });

let isToFreeze = config.freezes === "true";
await startInbox<InventoryMessage>({
  service: "inventory",
  database: openDatabase({ url: config.databaseUrl, connectionsMax: 5 }),
  kafka: { brokers: config.brokers, clientId: "freezing", log },
  topic: config.topic,
  registry: eventRegistry,
  handles: handledTypes,
  records: "handled",
  keyOf: ({ orderId }) => orderId,
  async handle(transaction, events) {
    const result = await handle(transaction, events);
    if (isToFreeze) {
      isToFreeze = false;
      process.kill(process.pid, "SIGSTOP");
    }
    return result;
  },
  urgentToHandle: urgentTypesFor("inventory"),
  outbox: createOutbox({ service: "inventory", registry: eventRegistry }),
  urgentToPublish: urgentTypes,
  hints: openHintSender("inventory", []),
  archiveRetentionHours: 1,
  newId,
  log,
  metrics: new Registry(),
});
