import { expect, test } from "bun:test";
import type { GatewayAnswer } from "./gateway-client.ts";
import { createThrottle } from "./throttle.ts";

const unknown = { $typeName: "GatewayUnknown" } as const;
const refused = (retryAfterMs: number): GatewayAnswer => ({ outcome: unknown, retryAfterMs });
const answered: GatewayAnswer = { outcome: { $typeName: "GatewayDeclined" } };

test("a 429 pauses for its Retry-After, and no answer to an earlier call shortens the pause", () => {
  let now = 1_000;
  const throttle = createThrottle(() => now);
  expect([throttle.answered(answered), throttle.isPaused()]).toEqual([0, false]);
  expect(throttle.answered(refused(7_000))).toBe(7_000);
  expect(throttle.isPaused()).toBe(true);
  now += 1_000;
  expect(throttle.answered(answered)).toBe(6_000);
  expect(throttle.answered(refused(5_500))).toBe(6_000);
  now += 5_999;
  expect(throttle.isPaused()).toBe(true);
  now += 1;
  expect(throttle.isPaused()).toBe(false);
  expect(throttle.answered(answered)).toBe(0);
});

test("a 429 without Retry-After pauses for longer the more of them come in a row", () => {
  let now = 0;
  const longest = (pauses: number) => {
    let most = 0;
    for (let round = 0; round < 200; round++) {
      const throttle = createThrottle(() => now);
      for (let pause = 1; pause <= pauses; pause++) {
        const ms = throttle.answered(refused(0));
        if (pause === pauses) most = Math.max(most, ms);
        now += ms + 1;
      }
    }
    return most;
  };
  expect(longest(1)).toBeLessThan(200);
  expect(longest(5)).toBeGreaterThan(400);
  expect(longest(20)).toBeLessThanOrEqual(5_000);
});
