/**
 * The inbox of one service: every event has its effect exactly once, although the topic delivers it at least once.
 *
 * The topic may deliver an event again after a crash, a rebalance or a republish, and two instances of the service may even
 * receive it at the same time. So the inbox keeps a table of the events that the service has handled, with the event's id
 * as primary key. It inserts the event's row in the same local transaction in which the event has its effect: the writes
 * of the service's handler, and the events that it publishes through the outbox. If the row is there already, the event is
 * a duplicate and is dropped. If the transaction fails, neither row nor effect remains, and the event is handled when it is
 * delivered again. The offset that a consumer commits on the topic is only a bookmark; the inbox table decides.
 *
 * One transaction handles a whole batch, with a number of statements that does not grow with the batch (attempt.ts). If a
 * batch fails, bisect.ts finds the faulty event, and parking.ts puts it aside with the later events of its key.
 */
import type { Message } from "@bufbuild/protobuf";
import type { Registry as Metrics } from "prom-client";
import type { Database, Transaction } from "../../services/kit/database.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { createAttempts, noSummary } from "./attempt.ts";
import { bisect } from "./bisect.ts";
import { createCircuitBreaker } from "./circuit-breaker.ts";
import { createEffects, type EffectOptions } from "./effect.ts";
import { createInboxMetrics } from "./metrics.ts";
import type { ParkedRecord } from "./parking.ts";
import { redeliverRequested } from "./redelivery.ts";
import { type Interest, readEntries, readParkedEvent } from "./rows.ts";

export interface InboxOptions<M extends Message> extends Interest<M>, EffectOptions<M> {
  readonly database: Database;
  readonly newId: () => string;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** The inbox of one service, without the broker. */
export interface Inbox {
  /**
   * Handles records; those of one partition must be in order. Usually takes one transaction. It takes none if the records
   * are only recorded, and several if an event has a fault.
   * @param signal when aborted, makes no further attempt and throws the last error.
   * @throws an outage. Part of the batch may be committed by then. Call again with the whole batch.
   */
  handle(records: readonly TopicRecord[], signal?: AbortSignal): Promise<void>;
  /** Redelivers the parked keys for which an operator has requested it. Call it regularly. @throws an outage. */
  redeliverRequested(signal?: AbortSignal): Promise<void>;
  /** True while the circuit breaker is open: too many keys failed in a row. An operator should investigate. */
  isStopped(): boolean;
}

/** Creates the inbox of one service. */
export function createInbox<M extends Message>(options: InboxOptions<M>): Inbox {
  const { service, database, log, newId } = options;
  const metrics = createInboxMetrics(options.metrics);
  const onTransactionRetry = () => metrics.transactionRetries.inc();
  const breaker = createCircuitBreaker((isOpen) => {
    metrics.stopped.set(isOpen ? 1 : 0);
    if (isOpen)
      log.error({ service }, "circuit breaker open: too many keys failed in a row, so nothing more is parked");
    else log.info({ service }, "circuit breaker closed: an event was handled");
  });
  const effects = createEffects<M>(options, metrics, breaker.succeeded);
  const attempts = createAttempts<M>({ service, database, newId, effects, metrics, log, onTransactionRetry });

  const handleParked = async (transaction: Transaction, parked: readonly ParkedRecord[]) => {
    const events = parked.map(({ eventId, record }) => readParkedEvent(record, eventId, options));
    const effect = await effects.decide(transaction, events);
    await transaction.pipeline(effect.statements);
    return () => effects.afterCommit(effect);
  };

  return {
    async handle(records, signal) {
      const startedMs = performance.now();
      const { entries, skipped } = readEntries<M>(records, options);
      const summary = entries.length === 0 ? noSummary : await bisect({ attempts, breaker, log }, entries, signal);
      const seconds = (performance.now() - startedMs) / 1_000;
      const duplicates = records.length - skipped - entries.length;
      metrics.batchSeconds.observe(seconds);
      metrics.events.inc({ outcome: "duplicate" }, duplicates);
      metrics.events.inc({ outcome: "skipped" }, skipped);
      log.info(
        {
          partition: records[0]?.partition,
          records: records.length,
          skipped,
          ...summary,
          duplicates: summary.duplicates + duplicates,
          seconds,
        },
        "batch handled",
      );
    },
    redeliverRequested: (signal) =>
      redeliverRequested({ service, database, log, metrics, handle: handleParked, onTransactionRetry }, signal),
    isStopped: breaker.isOpen,
  };
}
