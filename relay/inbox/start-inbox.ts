import type { Message } from "@bufbuild/protobuf";
import type { Check } from "../../services/kit/health.ts";
import { exitOnConsumerCrash } from "../../services/kit/shutdown.ts";
import { type InboxConsumerOptions, startConsumer } from "./consumer.ts";
import { createInbox, type InboxOptions } from "./inbox.ts";
import { startInboxPruning } from "./pruning.ts";

export interface StartInboxOptions<M extends Message>
  extends InboxOptions<M>,
    Omit<InboxConsumerOptions, "inbox" | "onCrash"> {
  /** How long outbox and archive together keep an event, counted from its publication. Inbox rows are kept longer. */
  readonly archiveRetentionHours: number;
}

/** A service's inbox at work. */
export interface RunningInbox {
  /**
   * For `/readyz`: the inbox's database answers, the consumer hears from its broker, all its partitions can be read, the
   * circuit breaker is closed.
   */
  readonly checks: Readonly<Record<"database" | "broker" | "partitions" | "inbox", Check>>;
  /** Finishes the batches under way and leaves the consumer group. Call it before closing the database. */
  close(): Promise<void>;
}

/**
 * Starts all that a service needs to receive events: the inbox, the consumer that brings records to it, and the pruning of
 * old rows. If the consumer stops for good, the process exits with 1.
 */
export async function startInbox<M extends Message>(options: StartInboxOptions<M>): Promise<RunningInbox> {
  const { database, log } = options;
  const inbox = createInbox(options);
  const consumer = await startConsumer({ ...options, inbox, onCrash: exitOnConsumerCrash(log) });
  const pruning = startInboxPruning(options);
  return {
    checks: {
      database: async () => (await database.query("SELECT 1")).length === 1,
      broker: consumer.isReady,
      partitions: () => consumer.unreadable().length === 0,
      inbox: () => !inbox.isStopped(),
    },
    async close() {
      await Promise.all([consumer.close(), pruning.close()]);
    },
  };
}
