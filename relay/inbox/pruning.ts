/** Keeps the inbox small: deletes the rows of events that cannot arrive again. */
import type { Database } from "../../services/kit/database.ts";
import { every, type Schedule } from "../../services/kit/every.ts";
import type { Logger } from "../../services/kit/log.ts";
import { deleteOldRows, type PruneOptions } from "../../services/kit/prune.ts";
import { openAdmin } from "../kafka/admin.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import { inboxTableName } from "../tables.ts";

const hourMs = 3_600_000;
const pruneIntervalMs = hourMs;

/**
 * Deletes inbox rows older than `olderThanMs`, in small batches. A deleted event would be handled again if it were
 * delivered again, so `olderThanMs` must come from {@link inboxRetentionMs}.
 */
export async function pruneInbox(
  options: PruneOptions & { readonly service: string },
): Promise<{ readonly deleted: number }> {
  // A parked event still waits to be handled, however old its row is.
  return await deleteOldRows(options, inboxTableName(options.service), "handled_at", "outcome <> 'PARKED'");
}

/**
 * How long the inbox must remember an event: as long as the event can arrive again, from the topic or republished from
 * outbox and archive. One more day leaves time to handle what was republished at the last moment.
 */
export function inboxRetentionMs(retention: {
  readonly topicRetentionMs: number;
  readonly archiveRetentionMs: number;
}): number {
  return Math.max(retention.topicRetentionMs, retention.archiveRetentionMs) + 24 * hourMs;
}

/**
 * Prunes a service's inbox every hour. It runs in the service itself because the rows belong to the service. It asks the
 * broker each time how long the topic keeps records; while the broker is unreachable, nothing is pruned.
 */
export function startInboxPruning(options: {
  readonly service: string;
  readonly database: Database;
  readonly kafka: KafkaOptions;
  readonly topic: string;
  /** How long outbox and archive together keep an event, counted from its publication. */
  readonly archiveRetentionHours: number;
  readonly log: Logger;
  /** Default: an hour. */
  readonly intervalMs?: number;
}): Schedule {
  const { service, database, topic, log } = options;
  return every(
    options.intervalMs ?? pruneIntervalMs,
    async (signal) => {
      const admin = await openAdmin(options.kafka);
      const topicRetentionMs = await admin.retentionMs(topic).finally(() => admin.close());
      const olderThanMs = inboxRetentionMs({
        topicRetentionMs,
        archiveRetentionMs: options.archiveRetentionHours * hourMs,
      });
      if (olderThanMs === Number.POSITIVE_INFINITY) return;
      const { deleted } = await pruneInbox({ service, database, olderThanMs, signal });
      if (deleted > 0) log.info({ deleted }, "inbox pruned");
    },
    (error) => log.warn({ err: error }, "inbox not pruned"),
  );
}
