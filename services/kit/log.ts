import pino, { type Logger } from "pino";

export type { Logger } from "pino";

/** Writes one JSON object per line to standard output. Log no secrets and no payment details. */
export function createLogger(options: { readonly instance: string; readonly level: string }): Logger {
  return pino({
    level: options.level,
    base: { instance: options.instance },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
}

/** A logger that drops everything, for tests. */
export const silentLogger: Logger = pino({ level: "silent" });
