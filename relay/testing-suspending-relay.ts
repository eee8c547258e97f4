/**
 * A relay that suspends itself at a chosen send: it sends itself SIGSTOP after it has read a batch and checked its ownership, and
 * before it sends. When it is continued (SIGCONT), it goes on as if no time had passed. It is a separate program because the
 * whole process must stand still, with its timers.
 */
import { Registry } from "prom-client";
import { eventRegistry } from "../proto/event-table.ts";
import { environment, hostPorts, integer, readConfig, text } from "../services/kit/config.ts";
import { silentLogger } from "../services/kit/log.ts";
import { openProducer } from "./kafka/producer.ts";
import { createRelayMetrics } from "./outbox/metrics.ts";
import { claimOwnership } from "./outbox/ownership.ts";
import { startRelaySource } from "./outbox/start-relay.ts";
import { openOutboxStore } from "./outbox/store.ts";

const log = silentLogger;
const { brokers, databaseUrl, table, topic, suspendAtSend } = readConfig(environment(), {
  brokers: hostPorts("KAFKA_BROKERS"),
  databaseUrl: text("DATABASE_URL"),
  table: text("OUTBOX_TABLE"),
  topic: text("TOPIC"),
  suspendAtSend: integer("SUSPEND_AT_SEND", { min: 1, max: 1_000 }),
});
const schema = new URL(databaseUrl).pathname.slice(1);

let sends = 0;
startRelaySource({
  name: "order",
  topic,
  ceSource: "/shop/order",
  encoding: "protobuf",
  registry: eventRegistry,
  store: openOutboxStore({ databaseUrl, table }),
  ownership: claimOwnership({ databaseUrl, schema, table, log }),
  async openProducer() {
    const producer = await openProducer({ brokers, clientId: "suspending", log, timeoutMs: 2_000 });
    return {
      ...producer,
      async send(to, records) {
        if (++sends === suspendAtSend) process.kill(process.pid, "SIGSTOP");
        await producer.send(to, records);
      },
    };
  },
  log,
  metrics: createRelayMetrics(new Registry()),
  pollIntervalMs: 100,
});
