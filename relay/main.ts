import { createConnection } from "node:net";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { environment, type HostPort } from "../services/kit/config.ts";
import { createMetrics, serveHealth } from "../services/kit/health.ts";
import { createLogger } from "../services/kit/log.ts";
import { closeOnSignal } from "../services/kit/shutdown.ts";
import { readRelayConfig } from "./config.ts";
import { listenForHints } from "./hint.ts";
import { openProducer } from "./kafka.ts";
import { createRelayMetrics } from "./metrics.ts";
import { openOutboxStore } from "./outbox-store.ts";
import { claimOwnership } from "./ownership.ts";
import { startRelaySource } from "./relay.ts";

const config = readRelayConfig(environment());
const log = createLogger({ instance: config.instance, level: config.logLevel });
const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, await Bun.file(config.descriptorSetPath).bytes()),
);
const metrics = createMetrics(config.instance);
const relayMetrics = createRelayMetrics(metrics);
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };
/** With the 3 s for which an owner is fresh, within the 5 s after which another one can take over. */
const sendTimeoutMs = 2_000;

const sources = new Map(
  config.sources.map((source) => {
    const { name, databaseUrl, schema, outboxTable: table } = source;
    const running = startRelaySource({
      ...source,
      registry,
      store: openOutboxStore({ databaseUrl, table }),
      ownership: claimOwnership({ databaseUrl, schema, table, log }),
      openProducer: () => openProducer({ ...kafka, timeoutMs: sendTimeoutMs }),
      log,
      metrics: relayMetrics,
    });
    return [name, running] as const;
  }),
);
const hints = await listenForHints({
  host: config.host,
  port: config.hintPort,
  onHint: (source) => sources.get(source)?.hint(),
});
const health = serveHealth({
  host: config.host,
  port: config.healthPort,
  metrics,
  checks: {
    // A source that waits, or is idle, has no news of the broker.
    broker: async () => (await Promise.all(config.kafkaBrokers.map(accepts))).includes(true),
    ...Object.fromEntries([...sources].map(([name, source]) => [`source ${name}`, source.isHealthy])),
  },
});
log.info({ sources: [...sources.keys()], hintPort: hints.port }, "relaying");

closeOnSignal({
  log,
  async close() {
    hints.close();
    await Promise.all([...sources.values()].map((source) => source.close()));
    await health.close();
  },
});

/** Whether anybody listens there. */
function accepts({ host, port }: HostPort): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port, timeout: 1_000 });
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => settle(true));
    socket.once("timeout", () => settle(false));
    socket.once("error", () => settle(false));
  });
}
