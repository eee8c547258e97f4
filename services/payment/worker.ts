/**
 * Makes the gateway calls that payments wait for, outside transactions and many side by side.
 *
 * A call is made by the instance that claims its row. A claim is a lease: if an outcome is lost or the process dies, the
 * row falls due again after 5 s, and the next instance repeats the call with the same key.
 */
import type { Registry as Metrics } from "prom-client";
import { fullJitterMs, sleep } from "../kit/backoff.ts";
import { endsWithin } from "../kit/deadline.ts";
import { createGatewayCalls } from "./gateway-calls.ts";
import type { GatewayClient } from "./gateway-client.ts";
import type { CallStarter } from "./handlers.ts";
import { createPaymentMetrics } from "./metrics.ts";
import { createOutcomeRecorder, type OutcomeDeps } from "./outcomes.ts";
import { claimDuePayments } from "./repository.ts";
import { paymentRetryPolicy } from "./retry-policy.ts";

export interface PaymentWorker extends CallStarter {
  /** Stops claiming, and waits at most 4 s for the outcomes of the current calls to be recorded. */
  close(): Promise<void>;
}

/** Finds retries that are due, rows of other instances and lost wake-ups. */
const pollIntervalMs = 500;
const closeDeadlineMs = 4_000;
const nothing = { claimed: [], unreadable: [] };

/** Starts claiming and goes on until closed. Waits for a database or a gateway that is away. */
export function startPaymentWorker(
  options: Omit<OutcomeDeps, "metrics"> & {
    /** Its timeout must be well below 5 s, the time for which a call is claimed. */
    readonly gatewayClient: GatewayClient;
    readonly metrics: Metrics;
    /** Calls side by side. Default 32. A call that waits for its retry does not count. */
    readonly callsMax?: number;
  },
): PaymentWorker {
  const { database, gatewayClient, log, callsMax = 32 } = options;
  const metrics = createPaymentMetrics({ database, log, metrics: options.metrics });
  const recorder = createOutcomeRecorder({ ...options, metrics });
  const closing = new AbortController();
  let bell = new AbortController();
  const ring = () => bell.abort();
  const calls = createGatewayCalls({
    gatewayClient,
    recorder,
    metrics,
    callsMax,
    closing: closing.signal,
    onSlotFree: ring,
  });

  const claimUntilClosed = async () => {
    let failures = 0;
    while (!closing.signal.aborted) {
      // Replaced before the query, so that a bell that rings during the query is not missed.
      bell = new AbortController();
      const limit = calls.freeSlots();
      try {
        const { claimed, unreadable } = limit === 0 ? nothing : await claimDuePayments(database, { limit });
        for (const payment of claimed) calls.start(payment);
        for (const error of unreadable) log.error({ err: error }, "payment skipped");
        metrics.unreadable("claim", unreadable.length);
        failures = 0;
        // If all free slots were filled, more may be due: go on at once if a slot is free again.
        if (limit > 0 && claimed.length + unreadable.length === limit && calls.freeSlots() > 0) continue;
      } catch (error) {
        metrics.failed("claim");
        log.error({ err: error }, "due gateway calls not claimed");
        await sleep(fullJitterMs(failures++, paymentRetryPolicy.claim));
        continue;
      }
      await sleep(pollIntervalMs, bell.signal);
    }
  };
  const claiming = claimUntilClosed();

  return {
    freeSlots: () => (closing.signal.aborted ? 0 : calls.freeSlots()),
    start(claimed) {
      // If this worker is closing, another instance makes the call after the lease.
      if (!closing.signal.aborted) claimed.forEach(calls.start);
    },
    wake: ring,
    async close() {
      closing.abort();
      ring();
      const done = (async () => {
        await claiming;
        await calls.settled();
        await recorder.close();
      })();
      await endsWithin(done, closeDeadlineMs);
    },
  };
}
