/**
 * Configuration: read once from the environment, typed, and refused at start with every faulty variable named.
 * This is the only file of the project that reads `process.env`.
 */
import { messageOf } from "./errors.ts";

/** A snapshot of the process's environment. Compositions roots call it; everything else is handed values. */
export function environment(): Readonly<Record<string, string | undefined>> {
  return { ...process.env };
}

/** Thrown by {@link readConfig}; its message names each faulty variable and says what it should hold. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** How one variable is read: its text, or its default, into a value. Throws an Error that says what it should be. */
export interface Setting<T> {
  readonly variable: string;
  readonly fallback: string | undefined;
  parse(text: string): T;
}

type Values<Settings> = { readonly [K in keyof Settings]: Settings[K] extends Setting<infer T> ? T : never };

/**
 * Reads all settings from `env`.
 * @throws ConfigError that lists every variable that is missing or malformed, not only the first.
 */
export function readConfig<Settings extends Record<string, Setting<unknown>>>(
  env: Readonly<Record<string, string | undefined>>,
  settings: Settings,
): Values<Settings> {
  const values: Record<string, unknown> = {};
  const faults: string[] = [];
  for (const [key, setting] of Object.entries(settings)) {
    const text = env[setting.variable] ?? setting.fallback;
    if (text === undefined || text === "") {
      faults.push(`${setting.variable} is not set`);
      continue;
    }
    try {
      values[key] = setting.parse(text);
    } catch (error) {
      faults.push(`${setting.variable} ${messageOf(error)}`);
    }
  }
  if (faults.length > 0) throw new ConfigError(`The configuration cannot be used: ${faults.join("; ")}.`);
  return values as Values<Settings>;
}

/** Any non-empty text. */
export function text(variable: string, fallback?: string): Setting<string> {
  return { variable, fallback, parse: (value) => value };
}

/** A whole number within bounds, units in the variable's name. */
export function integer(
  variable: string,
  options: { readonly fallback?: number; readonly min: number; readonly max: number },
): Setting<number> {
  return {
    variable,
    fallback: options.fallback?.toString(),
    parse(value) {
      const number = Number(value);
      if (!/^\d+$/.test(value) || number < options.min || number > options.max) {
        throw new Error(`must be a whole number from ${options.min} to ${options.max}, but is "${value}"`);
      }
      return number;
    },
  };
}

/** A TCP or UDP port. 0 lets the system choose. */
export function port(variable: string, fallback?: number): Setting<number> {
  return integer(variable, { ...(fallback === undefined ? {} : { fallback }), min: 0, max: 65_535 });
}

/** A URL with one of the given protocols, for example `["mysql:"]`. The value is never repeated: it may hold a password. */
export function url(variable: string, protocols: readonly string[], fallback?: string): Setting<string> {
  return {
    variable,
    fallback,
    parse(value) {
      if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol)) {
        throw new Error(`must be a URL that starts with ${protocols.map((it) => `${it}//`).join(" or ")}`);
      }
      return value.replace(/\/$/, "");
    },
  };
}

/** An address `host:port`. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** A comma-separated list of `host:port`; the word `none` is an empty list. */
export function hostPorts(variable: string, fallback?: string): Setting<readonly HostPort[]> {
  return {
    variable,
    fallback,
    parse(value) {
      if (value === "none") return [];
      return value.split(",").map((item) => {
        const match = /^([^:\s]+):(\d{1,5})$/.exec(item.trim());
        const [, host, digits] = match ?? [];
        if (host === undefined || Number(digits) > 65_535) {
          throw new Error(`must be host:port, several separated by commas, but has "${item}"`);
        }
        return { host, port: Number(digits) };
      });
    },
  };
}

/** JSON, checked and shaped by `shape`, which throws an Error that says what is wrong. */
export function json<T>(variable: string, shape: (value: unknown) => T, fallback?: string): Setting<T> {
  return {
    variable,
    fallback,
    parse(value) {
      let parsed: unknown;
      try {
        parsed = JSON.parse(value);
      } catch {
        throw new Error("must be JSON");
      }
      return shape(parsed);
    },
  };
}

/** What every process of the system is told. */
export const processSettings = {
  host: text("HOST", "127.0.0.1"),
  instance: text("INSTANCE"),
  logLevel: text("LOG_LEVEL", "info"),
  kafkaBrokers: hostPorts("KAFKA_BROKERS", "127.0.0.1:19092"),
};

/** How long outbox and archive together keep an event for a replay: the relay's 24 hours and 14 days. */
export const archiveRetentionHours = integer("ARCHIVE_RETENTION_HOURS", { fallback: 15 * 24, min: 1, max: 100_000 });

/** What every service of the saga is told beside that. Inbox rows are kept longer than the topic and the archive keep events. */
export const serviceSettings = (name: string, healthPort: number) => ({
  ...processSettings,
  instance: text("INSTANCE", name),
  healthPort: port("HEALTH_PORT", healthPort),
  databaseUrl: url("DATABASE_URL", ["mysql:"]),
  relayHints: hostPorts("RELAY_HINTS", "127.0.0.1:9470"),
  archiveRetentionHours,
});
