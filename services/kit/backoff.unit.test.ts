import { expect, test } from "bun:test";
import { fullJitterMs, retryFor, sleep } from "./backoff.ts";

test("the longest backoff doubles with each attempt up to its maximum, and the shortest is zero", () => {
  const highest = (attempt: number) => fullJitterMs(attempt, { baseMs: 100, maxMs: 1_000, random: () => 0.999_999 });
  expect([0, 1, 2, 3, 4, 1_000].map(highest)).toEqual([99, 199, 399, 799, 999, 999]);
  expect(fullJitterMs(5, { baseMs: 100, maxMs: 1_000, random: () => 0 })).toBe(0);
});

test("a sleep ends at once when its signal is aborted, or was aborted before", async () => {
  const controller = new AbortController();
  const long = sleep(60_000, controller.signal);
  controller.abort();
  await long;
  await sleep(60_000, controller.signal);
});

test("work is repeated until it succeeds, or throws its last error once the time has passed", async () => {
  let calls = 0;
  const succeedsAt = (call: number) => async () => {
    if (++calls < call) throw new Error(`call ${calls}`);
    return calls;
  };
  expect(await retryFor(succeedsAt(3), 60_000, 0)).toBe(3);
  calls = 0;
  await expect(retryFor(succeedsAt(2), -1, 60_000)).rejects.toThrow("call 1");
});
