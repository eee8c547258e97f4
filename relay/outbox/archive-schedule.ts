import { type Database, openDatabase } from "../../services/kit/database.ts";
import { every, type Schedule } from "../../services/kit/every.ts";
import { linkSignals } from "../../services/kit/linked-signal.ts";
import type { Logger } from "../../services/kit/log.ts";
import { type ArchiveTables, pruneArchive, runArchive } from "./archive.ts";
import type { Ownership } from "./ownership.ts";

/** Archive batches may be slow: nothing waits for them. */
const statementTimeoutMs = 30_000;

export interface ArchivingOptions extends ArchiveTables {
  /** In logs. */
  readonly source: string;
  readonly databaseUrl: string;
  readonly ownership: Ownership;
  readonly log: Logger;
  readonly intervalMs: number;
  /** Rows that were published longer ago move to the archive. */
  readonly archiveAfterMs: number;
  /** Rows that have been in the archive for longer are deleted. */
  readonly pruneAfterMs: number;
}

/** Archives and prunes one source at regular intervals, while this process owns it. */
export function startArchiving(options: ArchivingOptions): Schedule {
  const { source, outboxTable, archiveTable, ownership, log } = options;
  const database = openDatabase({ url: options.databaseUrl, connectionsMax: 1, statementTimeoutMs });
  let lost = new AbortController();
  ownership.onChange((isOwner) => {
    if (isOwner) lost = new AbortController();
    else lost.abort();
  });
  const whileOwned = (work: (run: ArchiveTables & { database: Database; signal: AbortSignal }) => Promise<void>) =>
    every(
      options.intervalMs,
      async (closing) => {
        if (!ownership.isFresh()) return;
        using linked = linkSignals(closing, lost.signal);
        await work({ database, outboxTable, archiveTable, signal: linked.signal });
      },
      (error) => log.warn({ source, err: error }, "archiving or pruning failed; will be retried"),
    );
  // Two schedules, because on a busy source the first may never come to an end.
  const schedules = [
    whileOwned(async (run) => {
      const { moved } = await runArchive({ ...run, olderThanMs: options.archiveAfterMs });
      if (moved > 0) log.info({ source, moved }, "archived");
    }),
    whileOwned(async (run) => {
      const { deleted } = await pruneArchive({ ...run, olderThanMs: options.pruneAfterMs });
      if (deleted > 0) log.info({ source, deleted }, "archive pruned");
    }),
  ];
  return {
    async close() {
      await Promise.all(schedules.map((schedule) => schedule.close()));
      await database.close();
    },
  };
}
