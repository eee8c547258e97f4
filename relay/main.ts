import { createConnection } from "node:net";
import { createFileRegistry, createRegistry, fromBinary, type Registry } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { sleep } from "../services/kit/backoff.ts";
import { ConfigError, environment, type HostPort } from "../services/kit/config.ts";
import { type Database, openDatabase } from "../services/kit/database.ts";
import { messageOf } from "../services/kit/errors.ts";
import { every } from "../services/kit/every.ts";
import { createMetrics, serveHealth } from "../services/kit/health.ts";
import { createLogger } from "../services/kit/log.ts";
import { closeOnSignal } from "../services/kit/shutdown.ts";
import { openAdmin } from "./kafka/admin.ts";
import { openProducer } from "./kafka/producer.ts";
import { type ArchiveTables, pruneArchive, runArchive } from "./outbox/archive.ts";
import { readRelayConfig, type SourceConfig } from "./outbox/config.ts";
import { listenForHints } from "./outbox/hint.ts";
import { createRelayMetrics } from "./outbox/metrics.ts";
import { claimOwnership, type Ownership, sendTimeoutMs } from "./outbox/ownership.ts";
import { startRelaySource } from "./outbox/relay.ts";
import { checkTables, checkTopics, type SourceCheck, type SourceFault } from "./outbox/source-check.ts";
import { createOwnedSources } from "./outbox/source-lock.ts";
import { openOutboxStore } from "./outbox/store.ts";

/** For faults that starting again does not mend. */
const configurationExitCode = 2;
/** A server that has not answered by then is away. */
const checkTimeoutMs = 5_000;
const recheckIntervalMs = 5_000;
/** A batch of the archive's may take its time; it is off the way of everything else. */
const archiveStatementTimeoutMs = 30_000;

const config = await orExit(() => readRelayConfig(environment()));
const log = createLogger({ instance: config.instance, level: config.logLevel });
const registry = await orExit(() => readRegistry(config.sources, config.descriptorSetPath));
const kafka = { brokers: config.kafkaBrokers, clientId: config.instance, log };

const away = await checkAtStart();

const metrics = createMetrics(config.instance);
const relayMetrics = createRelayMetrics(metrics);
const ownedSources = createOwnedSources();
const retryBackoff = { baseMs: config.retryBaseMs, maxMs: config.retryMaxMs };
const sources = new Map(config.sources.map((source) => [source.name, start(source)] as const));
const rechecks = away.map((check) => every(recheckIntervalMs, check, () => undefined));
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
    broker: brokerAnswers,
    ...Object.fromEntries([...sources].map(([name, source]) => [`source ${name}`, source.isHealthy])),
  },
});
log.info({ sources: [...sources.keys()], hintPort: hints.port }, "relaying");

closeOnSignal({
  log,
  async close() {
    hints.close();
    await Promise.all([...sources.values(), ...rechecks].map((it) => it.close()));
    await health.close();
  },
});

/** What the configuration holds or points to is at fault: then nothing is started, and all of it is named. */
async function orExit<T>(read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(error.message);
    process.exit(configurationExitCode);
  }
}

/** @throws ConfigError when a source needs a schema that cannot be read. */
async function readRegistry(all: readonly SourceConfig[], path: string): Promise<Registry> {
  if (all.every(({ encoding }) => encoding === "json")) return createRegistry();
  try {
    return createFileRegistry(fromBinary(FileDescriptorSetSchema, await Bun.file(path).bytes()));
  } catch (error) {
    const reason = messageOf(error);
    throw new ConfigError(`RELAY_DESCRIPTOR_SET: ${path} is no descriptor set (make one with buf build -o): ${reason}`);
  }
}

/**
 * Asks the servers whether every source is as it should be, and ends the process where one is not. Returns what is
 * still to be asked, of those servers that do not answer yet.
 */
async function checkAtStart(): Promise<readonly (() => Promise<void>)[]> {
  const questions = [
    { what: "broker", ask: askBroker },
    ...config.sources.map((source) => ({ what: `source ${source.name}`, ask: () => checkTables(source) })),
  ];
  const answers = await Promise.all(
    questions.map(async ({ what, ask }) => ({ what, ask, ...(await withinTime(ask())) })),
  );
  const faults = answers.flatMap((answer) => answer.faults);
  if (faults.length > 0) {
    tell(faults);
    process.exit(configurationExitCode);
  }
  return answers.flatMap(({ what, ask, away: reason }) => {
    if (reason === undefined) return [];
    log.warn({ what, err: reason }, "not checked: it does not answer; waiting for it");
    let isSettled = false;
    return [
      async () => {
        if (isSettled) return;
        const answer = await ask();
        isSettled = answer.away === undefined;
        // The others are at work by now; this one is tried again and again in any case.
        tell(answer.faults);
      },
    ];
  });
}

/** Its client takes long to find out that nobody listens; until then nothing would be started. */
async function askBroker(): Promise<SourceCheck> {
  if (await answersAnywhere()) return await checkTopics(config.sources, kafka);
  return { faults: [], away: new Error("No broker of KAFKA_BROKERS accepts connections.") };
}

function tell(faults: readonly SourceFault[]): void {
  for (const fault of faults) log.fatal(fault, "the source cannot be relayed as it is");
}

async function withinTime(asking: Promise<SourceCheck>): Promise<SourceCheck> {
  const waiting = new AbortController();
  const expired = sleep(checkTimeoutMs, waiting.signal).then(() => ({
    faults: [],
    away: new Error(`No answer within ${checkTimeoutMs} ms.`),
  }));
  try {
    return await Promise.race([asking, expired]);
  } finally {
    waiting.abort();
  }
}

/** A source at work: relayed and archived while it is owned. */
function start(source: SourceConfig) {
  const { databaseUrl, schema, outboxTable: table } = source;
  const ownership = claimOwnership({ databaseUrl, schema, table, log, ownedSources });
  const archiving = archive(source, ownership);
  const relaying = startRelaySource({
    ...source,
    registry,
    store: openOutboxStore({ databaseUrl, table }),
    ownership,
    openProducer: () => openProducer({ ...kafka, timeoutMs: sendTimeoutMs }),
    log,
    metrics: relayMetrics,
    attemptsMax: config.attemptsMax,
    retryBackoff,
  });
  return {
    hint: relaying.hint,
    isHealthy: relaying.isHealthy,
    async close() {
      await Promise.all([relaying.close(), archiving.close()]);
    },
  };
}

/** Moves old rows on, every now and then, while the source is ours. */
function archive({ name, databaseUrl, outboxTable, archiveTable }: SourceConfig, ownership: Ownership) {
  const database = openDatabase({
    url: databaseUrl,
    connectionsMax: 1,
    statementTimeoutMs: archiveStatementTimeoutMs,
  });
  let lost = new AbortController();
  ownership.onChange((owned) => {
    if (owned) lost = new AbortController();
    else lost.abort();
  });
  const whileOwned = (work: (options: ArchiveTables & { database: Database; signal: AbortSignal }) => Promise<void>) =>
    every(
      config.archiveIntervalMs,
      async (closing) => {
        if (!ownership.isFresh()) return;
        await work({ database, outboxTable, archiveTable, signal: AbortSignal.any([closing, lost.signal]) });
      },
      (error) => log.warn({ source: name, err: error }, "archive not kept; tried again later"),
    );
  // Side by side: on a busy source the first one may not come to an end.
  const schedules = [
    whileOwned(async (options) => {
      const { moved } = await runArchive({ ...options, olderThanMs: config.archiveAfterMs });
      if (moved > 0) log.info({ source: name, moved }, "archived");
    }),
    whileOwned(async (options) => {
      const { deleted } = await pruneArchive({ ...options, olderThanMs: config.archivePruneAfterMs });
      if (deleted > 0) log.info({ source: name, deleted }, "archive pruned");
    }),
  ];
  return {
    async close() {
      await Promise.all(schedules.map((schedule) => schedule.close()));
      await database.close();
    },
  };
}

/** One that hangs accepts connections all the same, so it is asked something. @throws Error when it does not answer. */
async function brokerAnswers(): Promise<boolean> {
  if (!(await answersAnywhere())) return false;
  const admin = await openAdmin(kafka);
  await admin.close();
  return true;
}

async function answersAnywhere(): Promise<boolean> {
  return (await Promise.all(config.kafkaBrokers.map(accepts))).includes(true);
}

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
