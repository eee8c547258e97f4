/**
 * Configuration: read once from the environment and typed. A process with a faulty configuration fails at start, with
 * every faulty variable named. Only this file reads `process.env`.
 */
import { messageOf } from "./errors.ts";

/** A snapshot of the process's environment. For each `main.ts`; all other code receives values. */
export function environment(): Readonly<Record<string, string | undefined>> {
  return { ...process.env };
}

/** Thrown by {@link readConfig}. The message names each faulty variable and says what it should hold. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** How to read one environment variable. */
export interface Setting<T> {
  readonly variable: string;
  /** The text to parse if the variable is not set; undefined if it is required. */
  readonly fallback: string | undefined;
  /** @throws Error with the rest of a sentence that begins with the variable's name: "must be …". */
  parse(text: string): T;
}

type Values<Settings> = { readonly [K in keyof Settings]: Settings[K] extends Setting<infer T> ? T : never };

/**
 * Reads all settings from `env`.
 * @throws ConfigError that lists every missing or malformed variable, not only the first.
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
  if (faults.length > 0) throw new ConfigError(`Invalid configuration: ${faults.join("; ")}.`);
  return values as Values<Settings>;
}

/** Any non-empty text. */
export function text(variable: string, fallback?: string): Setting<string> {
  return { variable, fallback, parse: (value) => value };
}

/** A whole number from `min` to `max`. The variable's name says the unit. */
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

/** A URL with one of the given protocols, such as `"mysql:"`. Errors never contain the value: it may hold a password. */
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

/** JSON, which `shape` checks and converts. `shape` throws like {@link Setting.parse}. */
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

/** Configuration shared by all processes. */
export const processSettings = {
  host: text("HOST", "127.0.0.1"),
  instance: text("INSTANCE"),
  logLevel: text("LOG_LEVEL", "info"),
  kafkaBrokers: hostPorts("KAFKA_BROKERS", "127.0.0.1:19092"),
};

/** How long outbox and archive together keep an event, so that it can be republished: by default 24 hours and 14 days. */
export const archiveRetentionHours = integer("ARCHIVE_RETENTION_HOURS", { fallback: 15 * 24, min: 1, max: 100_000 });

/** Configuration shared by all services of the saga. */
export const serviceSettings = (name: string, healthPort: number) => ({
  ...processSettings,
  instance: text("INSTANCE", name),
  healthPort: port("HEALTH_PORT", healthPort),
  databaseUrl: url("DATABASE_URL", ["mysql:"]),
  relayHints: hostPorts("RELAY_HINTS", "127.0.0.1:9470"),
  /** Inbox rows must be kept for longer than this, so that a republished event is still recognised. */
  archiveRetentionHours,
});
