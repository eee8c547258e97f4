/** The relay process: publishes the events of every configured outbox to its topic, and archives what is published. */
import { createFileRegistry, createRegistry, fromBinary, type Registry } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConfigError, environment } from "../services/kit/config.ts";
import { messageOf } from "../services/kit/errors.ts";
import { every, type Schedule } from "../services/kit/every.ts";
import { createMetrics, serveHealth } from "../services/kit/health.ts";
import { createLogger } from "../services/kit/log.ts";
import { closeOnSignal } from "../services/kit/shutdown.ts";
import { isBrokerAnswering } from "./kafka/probe.ts";
import { openProducer } from "./kafka/producer.ts";
import { startArchiving } from "./outbox/archive-schedule.ts";
import { readRelayConfig, type SourceConfig } from "./outbox/config.ts";
import { listenForHints } from "./outbox/hint.ts";
import { createRelayMetrics } from "./outbox/metrics.ts";
import { claimOwnership } from "./outbox/ownership.ts";
import { sendTimeoutMs } from "./outbox/ownership-times.ts";
import type { SourceProblem } from "./outbox/source-check.ts";
import { createOwnedSources } from "./outbox/source-lock.ts";
import { checkAtStart, type UncheckedServer } from "./outbox/start-check.ts";
import { startRelaySource } from "./outbox/start-relay.ts";
import { openOutboxStore } from "./outbox/store.ts";

/** For problems that a restart does not correct. */
const configurationExitCode = 2;
const recheckIntervalMs = 5_000;

const config = await exitOnConfigError(() => readRelayConfig(environment()));
const log = createLogger({ instance: config.instance, level: config.logLevel });
const registry = await exitOnConfigError(() => readRegistry(config.sources, config.descriptorSetPath));
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };

const { problems, unchecked } = await checkAtStart(config.sources, kafka);
logProblems(problems);
if (problems.length > 0) process.exit(configurationExitCode);

const metrics = createMetrics(config.instance);
const relayMetrics = createRelayMetrics(metrics);
const ownedSources = createOwnedSources();
const sources = new Map(config.sources.map((source) => [source.name, startSource(source)] as const));
const rechecks = unchecked.map(recheck);
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
    // A source sends nothing while it is idle or another replica owns it, so it would not notice an outage of the broker.
    broker: () => isBrokerAnswering(kafka),
    ...Object.fromEntries([...sources].map(([name, source]) => [`source ${name}`, source.isHealthy])),
  },
});
log.info({ sources: [...sources.keys()], hintPort: hints.port }, "relay started");

closeOnSignal({
  log,
  async close() {
    hints.close();
    await Promise.all([...sources.values(), ...rechecks].map((it) => it.close()));
    await health.close();
  },
});

/** Starts the relay and the archiving of a source. Both pause while another replica owns the source. */
function startSource(source: SourceConfig) {
  const { name, databaseUrl, schema, outboxTable: table, archiveTable } = source;
  const ownership = claimOwnership({ databaseUrl, schema, table, log, ownedSources });
  const archiving = startArchiving({
    source: name,
    databaseUrl,
    outboxTable: table,
    archiveTable,
    ownership,
    log,
    intervalMs: config.archiveIntervalMs,
    archiveAfterMs: config.archiveAfterMs,
    pruneAfterMs: config.archivePruneAfterMs,
  });
  const relaying = startRelaySource({
    ...source,
    registry,
    store: openOutboxStore({ databaseUrl, table }),
    ownership,
    openProducer: () => openProducer({ ...kafka, timeoutMs: sendTimeoutMs }),
    log,
    metrics: relayMetrics,
    attemptsMax: config.attemptsMax,
    retryBackoff: { baseMs: config.retryBaseMs, maxMs: config.retryMaxMs },
  });
  return {
    hint: relaying.hint,
    isHealthy: relaying.isHealthy,
    async close() {
      await Promise.all([relaying.close(), archiving.close()]);
    },
  };
}

/** Checks a server that was away at start again and again, until it answers. */
function recheck({ name, error, check }: UncheckedServer): Schedule {
  log.warn({ what: name, err: error }, "server could not be checked at start; retrying");
  const checkAgain = async () => {
    const result = await check();
    // Unlike at start, a problem does not end the process, because it relays other sources. This source fails until the
    // problem is corrected.
    logProblems(result.problems);
    if (result.error === undefined) void schedule.close();
  };
  // check() never throws.
  const schedule: Schedule = every(recheckIntervalMs, checkAgain, () => undefined);
  return schedule;
}

function logProblems(problems: readonly SourceProblem[]): void {
  for (const problem of problems) log.fatal(problem, "the source cannot be relayed until this is corrected");
}

/** Ends the process if the configuration is faulty, with a message that names every fault. */
async function exitOnConfigError<T>(read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(error.message);
    process.exit(configurationExitCode);
  }
}

/** The schemas of all events. @throws ConfigError if a source needs a descriptor set that cannot be read. */
async function readRegistry(all: readonly SourceConfig[], path: string): Promise<Registry> {
  if (all.every(({ encoding }) => encoding === "json")) return createRegistry();
  try {
    return createFileRegistry(fromBinary(FileDescriptorSetSchema, await Bun.file(path).bytes()));
  } catch (error) {
    const reason = messageOf(error);
    throw new ConfigError(
      `RELAY_DESCRIPTOR_SET: ${path} cannot be read as a descriptor set (create one with buf build -o): ${reason}`,
    );
  }
}
