import { describe, expect, test } from "bun:test";
import { findKnee } from "./knee.ts";

/** A system that keeps up with `limit` orders a second, and the rates that it was asked for. */
function systemWith(limit: number) {
  const tried: number[] = [];
  return {
    tried,
    async holds(rate: number) {
      tried.push(rate);
      return rate <= limit;
    },
  };
}

describe("findKnee", () => {
  for (const limit of [1, 7, 100, 101, 640, 1_999, 2_000, 40_000]) {
    test(`finds a limit of ${limit} within the precision, never above it`, async () => {
      const knee = await findKnee({ firstRate: 100, rateMax: 100_000, precision: 0.05, ...systemWith(limit) });
      expect(knee).toBeLessThanOrEqual(limit);
      expect(knee).toBeGreaterThanOrEqual(Math.floor(limit * 0.94) - 1);
    });
  }

  test("doubles first, then bisects, and tries what does not hold a second time", async () => {
    const system = systemWith(500);
    expect(await findKnee({ firstRate: 100, rateMax: 100_000, precision: 0.2, ...system })).toBe(500);
    expect(system.tried).toEqual([100, 200, 400, 800, 800, 600, 600, 500]);
  });

  test("a rate that holds at the second try holds", async () => {
    let pauses = 1;
    const knee = await findKnee({
      firstRate: 100,
      rateMax: 200,
      precision: 0.05,
      holds: async () => pauses-- !== 1,
    });
    expect(knee).toBe(200);
  });

  test("is 0 when nothing holds, and the most that may be tried when everything does", async () => {
    expect(await findKnee({ firstRate: 100, rateMax: 1_000, precision: 0.05, ...systemWith(0) })).toBe(0);
    expect(await findKnee({ firstRate: 100, rateMax: 1_000, precision: 0.05, ...systemWith(5_000) })).toBe(1_000);
  });
});
