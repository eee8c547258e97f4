import { createFileRegistry, fromBinary, type Registry } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { sagaTopic } from "../../proto/event-table.ts";
import { openProducer, type RecordProducer } from "../../relay/kafka/producer.ts";
import { type OperatedSource, operatorLengthMax } from "../../relay/operations/audit-log.ts";
import { readRelayConfig } from "../../relay/outbox/config.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import { archiveRetentionHours, ConfigError, readConfig } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { StackError } from "../stack/errors.ts";
import { serviceNames } from "../stack/services.ts";
import { readStackSettings } from "../stack/settings.ts";
import { readStackFile } from "../stack/stack-file.ts";

/** What the verbs work with. */
export interface OpsSettings {
  readonly sources: readonly OperatedSource[];
  /** Whoever is recorded with a change. */
  readonly operator: string;
  /** How long outbox and archive keep an event for a replay; consumers remember it for longer. */
  readonly archiveRetentionMs: number;
  /** The messages of all sources. */
  readonly openRegistry: () => Promise<Registry>;
  readonly openProducer: () => Promise<RecordProducer>;
  close(): Promise<void>;
}

type Environment = Readonly<Record<string, string | undefined>>;

const connectionsMax = 4;
const connectTimeoutMs = 3_000;
/** Counting in a table of millions of rows takes its time. */
const statementTimeoutMs = 120_000;
/** As the relay's: see relay/outbox/ownership.ts. */
const sendTimeoutMs = 2_000;
const hourMs = 60 * 60 * 1_000;

/**
 * The sources of `OPS_SOURCES`, or else of the local stack. Nothing is connected yet.
 * @throws ConfigError naming each faulty variable; StackError when there is neither.
 */
export async function readOpsSettings(
  env: Environment,
  root: string,
  operator: string | undefined,
): Promise<OpsSettings> {
  const retention = readConfig(env, { archiveRetentionHours });
  const config = env.OPS_SOURCES === undefined ? await readLocalStack(env, root) : readGivenSources(env);
  const sources = config.sources.map((source) => ({
    ...source,
    database: openDatabase({ url: source.databaseUrl, connectionsMax, connectTimeoutMs, statementTimeoutMs }),
  }));
  const kafka = { brokers: config.kafkaBrokers, clientId: "ops", log: silentLogger };
  return {
    sources,
    operator: readOperator(operator),
    archiveRetentionMs: retention.archiveRetentionHours * hourMs,
    openRegistry: async () =>
      createFileRegistry(fromBinary(FileDescriptorSetSchema, await Bun.file(config.descriptorSetPath).bytes())),
    openProducer: () => openProducer({ ...kafka, timeoutMs: sendTimeoutMs }),
    async close() {
      await Promise.allSettled(sources.map(({ database }) => database.close()));
    },
  };
}

function readGivenSources(env: Environment) {
  try {
    return readRelayConfig({ ...env, RELAY_SOURCES: env.OPS_SOURCES });
  } catch (error) {
    // The same format, by another name.
    if (error instanceof ConfigError) throw new ConfigError(error.message.replaceAll("RELAY_SOURCES", "OPS_SOURCES"));
    throw error;
  }
}

/** With the local stack's admin accounts: an operator of one machine has all of it anyway. */
async function readLocalStack(env: Environment, root: string) {
  const { dataFolder } = readStackSettings(env, root);
  const stack = await readStackFile(dataFolder).catch((error: Error) => {
    throw new StackError(`${error.message} For sources elsewhere, set OPS_SOURCES and KAFKA_BROKERS.`);
  });
  const sources = serviceNames.map((name) => ({
    name,
    databaseUrl: stack.databases[name],
    outboxTable: outboxTableName(name),
    archiveTable: outboxArchiveTableName(name),
    topic: sagaTopic,
    encoding: "protobuf",
  }));
  return readRelayConfig({
    ...env,
    RELAY_SOURCES: JSON.stringify(sources),
    KAFKA_BROKERS: stack.kafka.brokers.join(","),
  });
}

function readOperator(given: string | undefined): string {
  const operator = given ?? operatingSystemUser();
  if (operator === "") throw new ConfigError("This system has no name for you: say who you are with --operator NAME.");
  if (operator.length > operatorLengthMax) {
    throw new ConfigError(`--operator takes at most ${operatorLengthMax} characters, but has ${operator.length}.`);
  }
  return operator;
}

/** Asked of the system: Bun's `userInfo` takes it from the environment, where anybody may put any name. */
function operatingSystemUser(): string {
  try {
    return Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
  } catch {
    return "";
  }
}
