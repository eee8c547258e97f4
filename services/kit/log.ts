import pino, { type Logger } from "pino";

export type { Logger } from "pino";

/** One JSON object a line on standard output. No secret and no payment detail goes into it. */
export function createLogger(options: { readonly instance: string; readonly level: string }): Logger {
  return pino({
    level: options.level,
    base: { instance: options.instance },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
}

/** A logger that says nothing, for tests. */
export const silentLogger: Logger = pino({ level: "silent" });
