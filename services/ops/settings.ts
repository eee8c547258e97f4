import { createFileRegistry, fromBinary, type Registry } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { sagaTopic } from "../../proto/event-table.ts";
import { openProducer, type RecordProducer } from "../../relay/kafka/producer.ts";
import { operatorLengthMax } from "../../relay/operations/audit-log.ts";
import type { OperatedSource } from "../../relay/operations/source.ts";
import { readRelayConfig } from "../../relay/outbox/config.ts";
import { sendTimeoutMs } from "../../relay/outbox/ownership-times.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import { archiveRetentionHours, ConfigError, readConfig } from "../kit/config.ts";
import { openDatabase } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { StackError } from "../stack/errors.ts";
import { serviceNames } from "../stack/services.ts";
import { readStackSettings } from "../stack/settings.ts";
import { readStackFile } from "../stack/stack-file.ts";

/** The sources and clients that the verbs work with. */
export interface OpsSettings {
  readonly sources: readonly OperatedSource[];
  /** The name recorded with a change. */
  readonly operator: string;
  /** How long outbox and archive keep a published event. Inboxes remember it for longer, so it is safe to republish. */
  readonly archiveRetentionMs: number;
  /** The Protobuf messages of all sources. */
  readonly openRegistry: () => Promise<Registry>;
  readonly openProducer: () => Promise<RecordProducer>;
  close(): Promise<void>;
}

type Environment = Readonly<Record<string, string | undefined>>;

const connectionsMax = 4;
const connectTimeoutMs = 3_000;
/** Counting the rows of a table with millions of them takes long. */
const statementTimeoutMs = 120_000;
/** The audit reads other databases while it holds a snapshot of one. */
const idleLimits = { inTransactionSeconds: 30, sessionSeconds: 60 };
const hourMs = 60 * 60 * 1_000;

/**
 * The sources in `OPS_SOURCES`, or those of the local stack if that is not set. Connects on first use.
 * @throws ConfigError naming each wrong variable; StackError if there are no `OPS_SOURCES` and no local stack.
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
    database: openDatabase({
      url: source.databaseUrl,
      connectionsMax,
      connectTimeoutMs,
      statementTimeoutMs,
      idleLimits,
    }),
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
    // The format is the same, but the operator set another variable.
    if (error instanceof ConfigError) throw new ConfigError(error.message.replaceAll("RELAY_SOURCES", "OPS_SOURCES"));
    throw error;
  }
}

/** Uses the admin accounts of the local stack: its operator owns the machine anyway. */
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
  if (operator === "") throw new ConfigError("The operating system does not say who you are. Add --operator NAME.");
  if (operator.length > operatorLengthMax) {
    throw new ConfigError(`--operator takes at most ${operatorLengthMax} characters, not ${operator.length}.`);
  }
  return operator;
}

/** From the system itself: Bun's `userInfo` reads environment variables, which anyone can set to any name. */
function operatingSystemUser(): string {
  try {
    return Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
  } catch {
    return "";
  }
}
