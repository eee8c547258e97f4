/**
 * Tells bad events from a bad consumer. A single key that fails is parked. When several keys fail one after the other,
 * the events are hardly to blame: the circuit opens, nothing more is parked, and batches are retried until an event
 * succeeds. Otherwise a faulty release would park every key that it meets. Records that do not decode do not count:
 * anyone who may write to the topic could stop the inbox with a few of them.
 */
import { inboxRetryPolicy } from "./retry-policy.ts";

const { failingKeysToOpen, probesMax } = inboxRetryPolicy.circuitBreaker;

/** Watches which keys fail. One per inbox. */
export interface CircuitBreaker {
  /** Records that `key` has failed in its last attempt. Returns true if the circuit is open: then it must not be parked. */
  failed(key: string): boolean;
  /** Records that events were handled. Closes the circuit. */
  succeeded(): void;
  isOpen(): boolean;
}

/** Closed at first. `onChange` is called when the circuit opens (true) or closes (false). */
export function createCircuitBreaker(onChange: (isOpen: boolean) => void): CircuitBreaker {
  const failingKeys = new Set<string>();
  let isOpen = false;
  const change = (to: boolean) => {
    if (isOpen === to) return;
    isOpen = to;
    onChange(to);
  };
  return {
    failed(key) {
      failingKeys.add(key);
      if (failingKeys.size >= failingKeysToOpen) change(true);
      return isOpen;
    },
    succeeded() {
      failingKeys.clear();
      change(false);
    },
    isOpen: () => isOpen,
  };
}

/**
 * An event failed in its last attempt while the circuit is open: its key is not parked, and its batch will be retried. On
 * its way up through the levels of the bisection, each level probes other keys of the batch (bisect.ts). So this error
 * carries what the levels must share: which keys have failed, and how many probes are left.
 */
export class CircuitOpenError extends Error {
  override readonly name = "CircuitOpenError";
  /** Keys that failed in this attempt at the batch. Their later events must not be attempted. */
  readonly failedKeys: Set<string>;
  probesLeft: number = probesMax;

  constructor(key: string, options: { readonly cause: unknown }) {
    super(
      `${failingKeysToOpen} keys failed in a row, most recently ${key}. Nothing is parked until an event is handled.`,
      options,
    );
    this.failedKeys = new Set([key]);
  }
}
