/**
 * Finds the faulty event of a batch that fails. The batch is halved until the event is alone in its transaction; by then
 * everything before it is committed. The event gets a few more attempts, and then its key is parked. A record that does not
 * decode fails no batch: attempt.ts parks it.
 */
import type { Message } from "@bufbuild/protobuf";
import { fullJitterMs, sleep } from "../../services/kit/backoff.ts";
import type { Logger } from "../../services/kit/log.ts";
import { type Attempts, addSummaries, type Summary } from "./attempt.ts";
import { type CircuitBreaker, CircuitOpenError } from "./circuit-breaker.ts";
import { errorFields, faultOf } from "./faults.ts";
import { inboxRetryPolicy } from "./retry-policy.ts";
import type { Entry } from "./rows.ts";

const { attemptsMax, backoff } = inboxRetryPolicy.event;

export interface Bisection<M extends Message> {
  readonly attempts: Attempts<M>;
  readonly breaker: CircuitBreaker;
  readonly log: Logger;
}

/**
 * Handles the entries in as few transactions as their faults allow, in order.
 * @throws an outage, or CircuitOpenError. Some of the entries may be committed by then.
 */
export async function bisect<M extends Message>(
  bisection: Bisection<M>,
  entries: readonly Entry<M>[],
  signal?: AbortSignal,
): Promise<Summary> {
  let failure: unknown;
  try {
    return await bisection.attempts.handle(entries);
  } catch (error) {
    if (faultOf(error) === undefined || signal?.aborted) throw error;
    failure = error;
  }
  const [first, second] = entries;
  if (first === undefined) throw failure;
  if (second === undefined) return await retryOrPark(bisection, first, failure, signal);

  bisection.log.warn(
    { partition: first.record.partition, records: entries.length, ...errorFields(failure) },
    "batch failed; halving it",
  );
  const middle = Math.ceil(entries.length / 2);
  const secondHalf = entries.slice(middle);
  let summary: Summary;
  try {
    summary = await bisect(bisection, entries.slice(0, middle), signal);
  } catch (error) {
    if (error instanceof CircuitOpenError) await probe(bisection, secondHalf, error);
    throw error;
  }
  if (signal?.aborted) throw failure;
  return addSummaries(summary, await bisect(bisection, secondHalf, signal));
}

/** Retries an event that failed alone in its transaction, and parks its key after the last attempt. */
async function retryOrPark<M extends Message>(
  { attempts, breaker }: Bisection<M>,
  entry: Entry<M>,
  failure: unknown,
  signal?: AbortSignal,
): Promise<Summary> {
  let lastError = failure;
  for (let attempt = 1; attempt < attemptsMax; attempt++) {
    await sleep(fullJitterMs(attempt, backoff), signal);
    if (signal?.aborted) throw lastError;
    try {
      return await attempts.handle([entry]);
    } catch (error) {
      if (faultOf(error) === undefined) throw error;
      lastError = error;
    }
  }
  const fault = faultOf(lastError);
  if (fault === undefined) throw lastError;
  const { key } = entry.identity;
  if (breaker.failed(key)) throw new CircuitOpenError(key, { cause: lastError });
  return await attempts.park(entry, { error: lastError, fault, attempts: attemptsMax });
}

/**
 * Attempts a few other keys of the batch while the circuit is open, each at its first event. One that succeeds closes the
 * circuit. One that fails is not parked, and no later event of its key is attempted.
 *
 * CircuitOpenError leaves the bisection through every level. Each level whose first half failed probes its second half, so
 * the entries behind the failed event are probed, nearest first. `open.probesLeft` limits the probes of all levels together.
 */
async function probe<M extends Message>(
  { attempts, breaker }: Bisection<M>,
  entries: readonly Entry<M>[],
  open: CircuitOpenError,
): Promise<void> {
  for (const entry of entries) {
    const { key } = entry.identity;
    if (!breaker.isOpen() || open.probesLeft === 0) return;
    if (open.failedKeys.has(key)) continue;
    open.probesLeft--;
    try {
      await attempts.handle([entry]);
    } catch (error) {
      if (faultOf(error) === undefined) throw error;
      open.failedKeys.add(key);
    }
  }
}
