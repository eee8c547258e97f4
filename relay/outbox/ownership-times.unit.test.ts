import { expect, test } from "bun:test";
import {
  freshForMs,
  handOverMaxMs,
  pingIntervalMs,
  pingTimeoutMs,
  sendTimeoutMs,
  serverWaitMs,
  spreadIntervalMs,
} from "./ownership-times.ts";

test("the last send of an owner that falls silent ends before the server releases its lock", () => {
  expect(freshForMs + sendTimeoutMs).toBeLessThanOrEqual(serverWaitMs);
  // `wait_timeout` counts whole seconds.
  expect(serverWaitMs % 1_000).toBe(0);
});

test("an owner may go on sending while it waits for a slow ping", () => {
  expect(pingIntervalMs + pingTimeoutMs).toBeLessThanOrEqual(freshForMs);
});

test("a handover waits for the send in flight and keeps the lock meanwhile", () => {
  expect(handOverMaxMs).toBeGreaterThan(sendTimeoutMs);
  expect(handOverMaxMs).toBeLessThan(serverWaitMs);
});

test("between two handovers of a process there are two pings of the new owner", () => {
  expect(spreadIntervalMs).toBeGreaterThan(2 * pingIntervalMs);
});
