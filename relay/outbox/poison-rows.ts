/**
 * Counts failed attempts at poison rows. A row becomes FAILED and is attempted again later; after its last attempt it is
 * copied to the dead-letter topic and becomes DEAD, until an operator retries or discards it.
 */
import type { OutboxRow } from "../../proto/envelope.ts";
import { describeError } from "../../services/kit/errors.ts";
import type { Logger } from "../../services/kit/log.ts";
import type { AcknowledgedRows } from "./acknowledged-rows.ts";
import { toDeadLetter } from "./dead-letter.ts";
import { logFieldsOf } from "./faults.ts";
import type { RelayMetrics } from "./metrics.ts";
import { type OwnedProducer, OwnershipLostError } from "./owned-producer.ts";
import { type RetryBackoff, retryDelayMs } from "./retry-policy.ts";
import type { OutboxStore } from "./store.ts";

export interface PoisonRowsOptions {
  readonly source: string;
  readonly ceSource: string;
  readonly topic: string;
  readonly deadLetterTopic: string;
  readonly attemptsMax: number;
  readonly retryBackoff: RetryBackoff;
  readonly store: OutboxStore;
  readonly acknowledged: AcknowledgedRows;
  readonly producer: OwnedProducer;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
}

export class PoisonRows {
  readonly #options: PoisonRowsOptions;

  constructor(options: PoisonRowsOptions) {
    this.#options = options;
  }

  /**
   * Counts an attempt at `row` that failed with `cause`. The row becomes FAILED, or DEAD if the attempt was its last; before
   * that, its dead letter is sent.
   */
  async countAttempt(row: OutboxRow, cause: unknown): Promise<void> {
    const { source, store, acknowledged, attemptsMax, retryBackoff, metrics, log } = this.#options;
    const { id } = row;
    // The earlier rows of the key have been sent. They are marked first: once this row is FAILED, its key is held, and they
    // would neither be read again nor let this row be retried.
    await acknowledged.mark();
    const failedAttempts = await store.failedAttemptsOf(id);
    // Another process has changed the row's status. It is read before the next pass.
    if (failedAttempts === undefined) return;
    const attempts = failedAttempts + 1;
    const attempt = { id, failedAttempts, error: describeError(cause) };
    const fields = { kind: "poison", ...logFieldsOf(row), attempts, err: cause };
    const isLast = attempts >= attemptsMax;
    // The dead letter is sent first. A crash in between repeats it: at least once.
    if (isLast && (await this.#sendDeadLetter(row, attempt.error, attempts))) {
      if (!(await store.markDead(attempt))) return;
      metrics.failures.inc({ source, kind: "poison" });
      metrics.deadEvents.inc({ source });
      log.error(fields, "event dead: its key waits for an operator to retry or discard it");
      return;
    }
    const delayMs = retryDelayMs(failedAttempts, retryBackoff);
    // A last attempt whose dead letter was not sent does not count, and is made again.
    const isMarked = await store.markFailed({ ...attempt, countsAttempt: !isLast, delayMs });
    if (!isMarked) return;
    // #sendDeadLetter has logged and counted why.
    if (isLast) return;
    metrics.failures.inc({ source, kind: "poison" });
    if (attempts === 1) metrics.failedEvents.inc({ source });
    log.warn({ ...fields, delayMs }, "event failed: its key waits until the next attempt");
  }

  /** Returns false if the dead letter could not be sent. That is an outage, but the pass goes on with the other keys. */
  async #sendDeadLetter(row: OutboxRow, error: string, attempts: number): Promise<boolean> {
    const { source, ceSource, topic, deadLetterTopic, store, producer, metrics, log } = this.#options;
    const origin = { source, ceSource, qualifiedTable: store.qualifiedTable, topic };
    try {
      const letter = toDeadLetter({ row, ...origin, error, attempts, failedAt: new Date() });
      await producer.send(deadLetterTopic, [letter]);
      return true;
    } catch (failure) {
      if (failure instanceof OwnershipLostError) throw failure;
      metrics.failures.inc({ source, kind: "outage" });
      log.error({ ...logFieldsOf(row), topic: deadLetterTopic, err: failure }, "dead letter not sent; will be retried");
      return false;
    }
  }
}
