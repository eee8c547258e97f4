import { describe, expect, test } from "bun:test";
import { findKnee } from "./knee.ts";

/** A system that keeps up with `limit` orders a second, and the rates at which it was tested. */
function systemWith(limit: number) {
  const tested: number[] = [];
  return {
    tested,
    async holds(rate: number) {
      tested.push(rate);
      return rate <= limit;
    },
  };
}

describe("findKnee", () => {
  for (const limit of [1, 7, 100, 101, 640, 1_999, 2_000, 40_000]) {
    test(`the knee of a system with a limit of ${limit} is within the precision and never above the limit`, async () => {
      const knee = await findKnee({ firstRate: 100, rateMax: 100_000, precision: 0.05, ...systemWith(limit) });
      expect(knee).toBeLessThanOrEqual(limit);
      expect(knee).toBeGreaterThanOrEqual(Math.floor(limit * 0.94) - 1);
    });
  }

  test("the search doubles the rate, then bisects, and repeats a rate that does not hold", async () => {
    const system = systemWith(500);
    expect(await findKnee({ firstRate: 100, rateMax: 100_000, precision: 0.2, ...system })).toBe(500);
    expect(system.tested).toEqual([100, 200, 400, 800, 800, 600, 600, 500]);
  });

  test("a rate that holds at its second attempt holds", async () => {
    let pauses = 1;
    const knee = await findKnee({
      firstRate: 100,
      rateMax: 200,
      precision: 0.05,
      holds: async () => pauses-- !== 1,
    });
    expect(knee).toBe(200);
  });

  test("the knee is 0 if no rate holds, and the maximum if all do", async () => {
    expect(await findKnee({ firstRate: 100, rateMax: 1_000, precision: 0.05, ...systemWith(0) })).toBe(0);
    expect(await findKnee({ firstRate: 100, rateMax: 1_000, precision: 0.05, ...systemWith(5_000) })).toBe(1_000);
  });
});
