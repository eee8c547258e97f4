/** The relay's configuration. A source is an entry in RELAY_SOURCES; adding one needs no code. */
import type { Encoding } from "../../proto/envelope.ts";
import { integer, json, port, processSettings, readConfig, text } from "../../services/kit/config.ts";
import { attemptsMaxDefault, retryBackoffDefault } from "./retry-policy.ts";

/** One outbox table and where its events go. */
export interface SourceConfig {
  /** In hints, logs and metrics. */
  readonly name: string;
  /** mysql://user:password@host:port/schema */
  readonly databaseUrl: string;
  readonly schema: string;
  readonly outboxTable: string;
  readonly archiveTable: string;
  readonly topic: string;
  /** Where the copies of DEAD events go. */
  readonly deadLetterTopic: string;
  readonly encoding: Encoding;
  /** The CloudEvents source of its events. */
  readonly ceSource: string;
}

const dayMs = 24 * 60 * 60 * 1_000;
const yearMs = 365 * dayMs;

/** @throws ConfigError naming every faulty variable and, in `RELAY_SOURCES`, the entry and the field. */
export const readRelayConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...processSettings,
    instance: { ...processSettings.instance, fallback: "relay" },
    healthPort: port("HEALTH_PORT", 9467),
    hintPort: port("RELAY_HINT_PORT", 9470),
    /** The Protobuf schemas of all sources, from `buf build -o`. */
    descriptorSetPath: text("RELAY_DESCRIPTOR_SET", "proto/gen/descriptors.binpb"),
    sources: json("RELAY_SOURCES", parseSources),
    /** Attempts at a poison event before it is DEAD. */
    attemptsMax: integer("RELAY_ATTEMPTS_MAX", { fallback: attemptsMaxDefault, min: 1, max: 1_000 }),
    /** The waits between these attempts are 1, 2, 4, … × base, at most max. */
    retryBaseMs: integer("RELAY_RETRY_BASE_MS", { fallback: retryBackoffDefault.baseMs, min: 1, max: dayMs }),
    retryMaxMs: integer("RELAY_RETRY_MAX_MS", { fallback: retryBackoffDefault.maxMs, min: 1, max: dayMs }),
    /** How long published rows stay in the outbox, and then in the archive. */
    archiveAfterMs: integer("RELAY_ARCHIVE_AFTER_MS", { fallback: dayMs, min: 0, max: 10 * yearMs }),
    archivePruneAfterMs: integer("RELAY_ARCHIVE_PRUNE_AFTER_MS", { fallback: 14 * dayMs, min: 0, max: 10 * yearMs }),
    archiveIntervalMs: integer("RELAY_ARCHIVE_INTERVAL_MS", { fallback: 60_000, min: 100, max: dayMs }),
  });

const sourcesMax = 100;
const tableNamePattern = /^[a-z0-9_]{1,64}$/;
const fields = new Set([
  "name",
  "databaseUrl",
  "outboxTable",
  "archiveTable",
  "topic",
  "deadLetterTopic",
  "encoding",
  "ceSource",
]);
// Kafka's own rule for topic names.
const topicPattern = /^[a-zA-Z0-9._-]{1,249}$/;

function parseSources(value: unknown): readonly SourceConfig[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > sourcesMax) {
    throw new Error(`must be a JSON array of 1 to ${sourcesMax} sources`);
  }
  const sources = value.map((entry: unknown, index) => parseSource(entry, `entry ${index + 1}`));
  const seen = new Map<string, string>();
  sources.forEach((source, index) => {
    const { host } = new URL(source.databaseUrl);
    // Two sources with one table would compete for it. Two with one name would look alike in logs and metrics.
    for (const identity of [`name ${source.name}`, `table ${source.outboxTable} of ${host}/${source.schema}`]) {
      const other = seen.get(identity);
      if (other !== undefined) throw new Error(`entry ${index + 1}: ${other} has the same ${identity}`);
      seen.set(identity, `entry ${index + 1}`);
    }
  });
  return sources;
}

function parseSource(entry: unknown, entryName: string): SourceConfig {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw new Error(`${entryName}: must be a JSON object`);
  }
  const given = entry as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(given).filter((field) => !fields.has(field));
  if (unknown.length > 0) {
    throw new Error(`${entryName}: unknown field ${unknown.join(", ")}; known are ${[...fields].join(", ")}`);
  }
  // Errors repeat the value, except for the URL, which may hold a password.
  const read = (field: string, pattern: RegExp, fallback?: string): string => {
    const value = given[field] ?? fallback;
    if (value === undefined) throw new Error(`${entryName}: ${field} is missing`);
    if (typeof value !== "string" || !pattern.test(value)) {
      throw new Error(`${entryName}: ${field} must match ${pattern}, but is ${JSON.stringify(value)}`);
    }
    return value;
  };
  const name = read("name", /^[a-z0-9][a-z0-9_-]{0,63}$/);
  const outboxTable = read("outboxTable", tableNamePattern);
  const topic = read("topic", topicPattern);
  const deadLetterTopic = read("deadLetterTopic", topicPattern, `${topic}.dlq`);
  // On the same topic, consumers would mistake a dead letter for the event.
  if (deadLetterTopic === topic)
    throw new Error(`${entryName}: deadLetterTopic must not be the topic itself, ${topic}`);
  return {
    name,
    ...readDatabase(given.databaseUrl, entryName),
    outboxTable,
    archiveTable: read("archiveTable", tableNamePattern, `${outboxTable}_archive`),
    topic,
    deadLetterTopic,
    encoding: read("encoding", /^(protobuf|json)$/, "protobuf") as Encoding,
    ceSource: read("ceSource", /^[!-~]{1,128}$/, `/shop/${name}`),
  };
}

function readDatabase(value: unknown, entryName: string): { readonly databaseUrl: string; readonly schema: string } {
  if (value === undefined) throw new Error(`${entryName}: databaseUrl is missing`);
  const parsed = typeof value === "string" && URL.canParse(value) ? new URL(value) : undefined;
  const schema = parsed === undefined ? "" : decodeURIComponent(parsed.pathname.slice(1));
  if (parsed?.protocol !== "mysql:" || schema === "") {
    throw new Error(`${entryName}: databaseUrl must be a URL like mysql://user:password@host:3306/schema`);
  }
  return { databaseUrl: value as string, schema };
}
