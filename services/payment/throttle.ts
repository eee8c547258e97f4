/** Pauses all gateway calls of this process while the gateway asks for it: a rate limit counts every call of a client. */
import { fullJitterMs } from "../kit/backoff.ts";
import type { GatewayAnswer } from "./gateway-client.ts";
import { paymentRetryPolicy } from "./retry-policy.ts";

export interface Throttle {
  /** Notes an answer. A 429 starts a pause, or prolongs it. Returns how long calls are paused from now on, in milliseconds. */
  answered(answer: GatewayAnswer): number;
  /** True while no call should be made. */
  isPaused(): boolean;
}

/** No call is paused at first. @param nowMs a clock that never goes back. */
export function createThrottle(nowMs: () => number = () => performance.now()): Throttle {
  let pausedUntilMs = 0;
  let pausesInRow = 0;
  return {
    answered({ retryAfterMs }) {
      const now = nowMs();
      if (retryAfterMs === undefined) {
        // An answer to a call from before the pause does not end it.
        if (now >= pausedUntilMs) pausesInRow = 0;
      } else {
        // Calls side by side that are refused together are one pause.
        if (now >= pausedUntilMs) pausesInRow++;
        const pauseMs = Math.max(retryAfterMs, fullJitterMs(pausesInRow, paymentRetryPolicy.throttle));
        pausedUntilMs = Math.max(pausedUntilMs, now + pauseMs);
      }
      return Math.max(0, pausedUntilMs - now);
    },
    isPaused: () => nowMs() < pausedUntilMs,
  };
}
