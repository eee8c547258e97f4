import type { Queryable } from "./database.ts";
import { SessionRefusedError } from "./database-errors.ts";
import type { Logger } from "./log.ts";

/**
 * Runs `close` once, on SIGTERM or SIGINT, and exits 0; exits 1 if `close` throws or takes longer than `timeoutMs`.
 * Also exits 1 on an unhandled promise rejection, so that the supervisor restarts the process.
 */
export function closeOnSignal(options: {
  readonly log: Logger;
  readonly close: () => Promise<void>;
  /** Default 5,000. */
  readonly timeoutMs?: number;
}): void {
  let closing = false;
  const shutDown = (signal: string) => {
    if (closing) return;
    closing = true;
    options.log.info({ signal }, "closing");
    const timer = setTimeout(() => {
      options.log.error("did not close in time");
      process.exit(1);
    }, options.timeoutMs ?? 5_000);
    options.close().then(
      () => {
        clearTimeout(timer);
        process.exit(0);
      },
      (error) => {
        options.log.error({ err: error }, "closing failed");
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", () => shutDown("SIGTERM"));
  process.on("SIGINT", () => shutDown("SIGINT"));
  process.on("unhandledRejection", (error) => {
    options.log.fatal({ err: error }, "unhandled rejection");
    process.exit(1);
  });
}

/** Logged when a consumer stops for good. The fault injection (load/chaos) recognises the exit that follows by it. */
export const consumerStoppedMessage = "the consumer has stopped";

/** Exits with 1 when a consumer stops for good, so that the supervisor restarts the process. */
export function exitOnConsumerCrash(log: Logger): (error: Error) => never {
  return (error) => {
    log.fatal({ err: error }, consumerStoppedMessage);
    process.exit(1);
  };
}

/** For faults that a restart does not correct. */
const configurationExitCode = 2;

/**
 * Asks the database, without waiting for the answer, and exits with 2 if its sessions cannot be used safely. A database that
 * is away is no reason to exit.
 */
export function exitOnRefusedSession(database: Queryable, log: Logger): void {
  database.query("SELECT 1").catch((error: unknown) => {
    if (!(error instanceof SessionRefusedError)) return;
    log.fatal({ err: error }, "the database cannot be used safely");
    process.exit(configurationExitCode);
  });
}
