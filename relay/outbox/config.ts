/** The relay's configuration. A source is a line of it; adding one needs no code. */
import type { Encoding } from "../../proto/envelope.ts";
import { integer, json, port, processSettings, readConfig, text } from "../../services/kit/config.ts";

/** One outbox table, and where its events go. */
export interface SourceConfig {
  /** In hints, logs and metrics. */
  readonly name: string;
  /** mysql://user:password@host:port/schema */
  readonly databaseUrl: string;
  readonly schema: string;
  readonly outboxTable: string;
  readonly archiveTable: string;
  readonly topic: string;
  /** Where events go that were given up. */
  readonly deadLetterTopic: string;
  readonly encoding: Encoding;
  /** The CloudEvents source of its events. */
  readonly ceSource: string;
}

const dayMs = 24 * 60 * 60 * 1_000;
const yearMs = 365 * dayMs;

/** @throws ConfigError that names every faulty variable and, in `RELAY_SOURCES`, the entry and the field. */
export const readRelayConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...processSettings,
    instance: { ...processSettings.instance, fallback: "relay" },
    healthPort: port("HEALTH_PORT", 9467),
    hintPort: port("RELAY_HINT_PORT", 9470),
    /** The messages of all sources, from `buf build -o`. */
    descriptorSetPath: text("RELAY_DESCRIPTOR_SET", "proto/gen/descriptors.binpb"),
    sources: json("RELAY_SOURCES", parseSources),
    /** How often a poison row is tried before it is dead, and how long it is left alone between: 1, 2, 4, … × base. */
    attemptsMax: integer("RELAY_ATTEMPTS_MAX", { fallback: 10, min: 1, max: 1_000 }),
    retryBaseMs: integer("RELAY_RETRY_BASE_MS", { fallback: 1_000, min: 1, max: dayMs }),
    retryMaxMs: integer("RELAY_RETRY_MAX_MS", { fallback: 300_000, min: 1, max: dayMs }),
    /** Published rows leave the outbox for the archive, and the archive for good. */
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
    // Two loops over one table would take turns at it; two with one name could not be told apart.
    for (const identity of [`name ${source.name}`, `table ${source.outboxTable} of ${host}/${source.schema}`]) {
      const other = seen.get(identity);
      if (other !== undefined) throw new Error(`entry ${index + 1}: ${other} has the same ${identity}`);
      seen.set(identity, `entry ${index + 1}`);
    }
  });
  return sources;
}

function parseSource(entry: unknown, place: string): SourceConfig {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw new Error(`${place}: must be a JSON object`);
  }
  const given = entry as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(given).filter((field) => !fields.has(field));
  if (unknown.length > 0) {
    throw new Error(`${place}: has no field ${unknown.join(", ")}; there are ${[...fields].join(", ")}`);
  }
  // Values are repeated in errors, except the URL: it may hold a password.
  const read = (field: string, pattern: RegExp, fallback?: string): string => {
    const value = given[field] ?? fallback;
    if (value === undefined) throw new Error(`${place}: ${field} is missing`);
    if (typeof value !== "string" || !pattern.test(value)) {
      throw new Error(`${place}: ${field} must match ${pattern}, but is ${JSON.stringify(value)}`);
    }
    return value;
  };
  const name = read("name", /^[a-z0-9][a-z0-9_-]{0,63}$/);
  const outboxTable = read("outboxTable", tableNamePattern);
  const topic = read("topic", topicPattern);
  const deadLetterTopic = read("deadLetterTopic", topicPattern, `${topic}.dlq`);
  // Consumers of the topic would take a dead-letter record for the event.
  if (deadLetterTopic === topic) throw new Error(`${place}: deadLetterTopic must be another topic than ${topic}`);
  return {
    name,
    ...readDatabase(given.databaseUrl, place),
    outboxTable,
    archiveTable: read("archiveTable", tableNamePattern, `${outboxTable}_archive`),
    topic,
    deadLetterTopic,
    encoding: read("encoding", /^(protobuf|json)$/, "protobuf") as Encoding,
    ceSource: read("ceSource", /^[!-~]{1,128}$/, `/shop/${name}`),
  };
}

function readDatabase(value: unknown, place: string): { readonly databaseUrl: string; readonly schema: string } {
  if (value === undefined) throw new Error(`${place}: databaseUrl is missing`);
  const parsed = typeof value === "string" && URL.canParse(value) ? new URL(value) : undefined;
  const schema = parsed === undefined ? "" : decodeURIComponent(parsed.pathname.slice(1));
  if (parsed?.protocol !== "mysql:" || schema === "") {
    throw new Error(`${place}: databaseUrl must be a URL like mysql://user:password@host:3306/schema`);
  }
  return { databaseUrl: value as string, schema };
}
