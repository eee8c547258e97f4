/** Carries out gateway calls, up to a limit side by side, and has their outcomes recorded. */
import { fullJitterMs, sleep } from "../kit/backoff.ts";
import { isDataError } from "../kit/database-errors.ts";
import { type GatewayCall, nextCall } from "./domain.ts";
import type { GatewayClient } from "./gateway-client.ts";
import type { PaymentMetrics } from "./metrics.ts";
import type { AnsweredCall, OutcomeRecorder } from "./outcomes.ts";
import { leaseMs, type Payment } from "./repository.ts";
import { paymentRetryPolicy } from "./retry-policy.ts";
import { createThrottle } from "./throttle.ts";

export interface GatewayCalls {
  /** How many more calls may be started now: none while the gateway has asked for a pause. */
  freeSlots(): number;
  /** Makes the call that a claimed payment waits for. During a pause, it is left to fall due again. */
  start(claimed: Payment): void;
  /** Resolves when the outcomes of all calls are recorded or given up. */
  settled(): Promise<unknown>;
}

export function createGatewayCalls(options: {
  readonly gatewayClient: GatewayClient;
  readonly recorder: OutcomeRecorder;
  readonly metrics: PaymentMetrics;
  readonly callsMax: number;
  /** Once it is aborted, an outcome that cannot be recorded is not retried. */
  readonly closing: AbortSignal;
  /** Called when a slot becomes free after all were taken. */
  readonly onSlotFree: () => void;
}): GatewayCalls {
  const { gatewayClient, recorder, metrics, callsMax, closing } = options;
  const throttle = createThrottle();
  const current = new Set<Promise<void>>();
  let slotsTaken = 0;

  const record = async (answered: AnsweredCall, startedMs: number) => {
    for (let attempt = 0; ; attempt++) {
      try {
        await (attempt === 0 ? recorder.record(answered) : recorder.recordAlone(answered));
        return;
      } catch (error) {
        // After the lease the call is due again, and the gateway gives the same answer to its key.
        if (closing.aborted || isDataError(error) || performance.now() - startedMs > leaseMs) return;
        await sleep(fullJitterMs(attempt, paymentRetryPolicy.record));
      }
    }
  };

  const carryOut = async (call: GatewayCall, attempts: number) => {
    const startedMs = performance.now();
    const answer = await gatewayClient(call);
    metrics.called(call, answer, (performance.now() - startedMs) / 1_000);
    metrics.paused(throttle.answered(answer));
    // Frees the slot before recording: slots limit the calls to the gateway, and recording has a queue of its own.
    if (slotsTaken-- === callsMax) options.onSlotFree();
    const retryInMs = (answer.retryAfterMs ?? 0) + fullJitterMs(attempts - 1, paymentRetryPolicy.call);
    await record({ call, answer, retryInMs }, startedMs);
  };

  return {
    freeSlots: () => (throttle.isPaused() ? 0 : Math.max(0, callsMax - slotsTaken)),
    start({ state, pending }) {
      const call = nextCall(state);
      if (call === undefined || throttle.isPaused()) return;
      slotsTaken++;
      const done = carryOut(call, pending?.attempts ?? 1).finally(() => current.delete(done));
      current.add(done);
    },
    settled: () => Promise.all(current),
  };
}
