import { describe, expect, test } from "bun:test";
import { formatResult, formatStep, type LoadResult, problemsOf, quantilesOf } from "./result.ts";

const good: LoadResult = {
  run: "0a1b2c3d",
  ratePerSecond: 100,
  seconds: 60,
  placed: 6_000,
  completed: 5_400,
  failed: { PAYMENT_DECLINED: 290, OUT_OF_STOCK: 310 },
  notFinal: 0,
  lost: 0,
  client: {
    acknowledged: 6_000,
    errors: 0,
    droppedIterations: 0,
    watched: 600,
    watchesNotFinal: 0,
    answeredMs: { count: 6_000, p50: 3.21, p95: 8, p99: 12, max: 40 },
    watchedFinalMs: undefined,
  },
  finalMs: { count: 6_000, p50: 11, p95: 20, p99: 31, max: 90 },
  cpuSeconds: { order: 6, k6: 3, mariadb: 3 },
  machineCpuSeconds: 30,
  wallSeconds: 60,
};

describe("quantilesOf", () => {
  test("a quantile is the value at the nearest rank", () => {
    const values = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect(quantilesOf(values)).toEqual({ count: 100, p50: 50, p95: 95, p99: 99, max: 100 });
  });

  test("every quantile of one value is that value, and no values have no quantiles", () => {
    expect(quantilesOf([7])).toEqual({ count: 1, p50: 7, p95: 7, p99: 7, max: 7 });
    expect(quantilesOf([])).toBeUndefined();
  });
});

describe("problemsOf", () => {
  test("a good run has no problems", () => {
    expect(problemsOf(good)).toEqual([]);
  });

  test("every problem of a run is named with its count", () => {
    const client = { ...good.client, errors: 2, droppedIterations: 3, watchesNotFinal: 4 };
    expect(problemsOf({ ...good, client, lost: 1, notFinal: 1_200 })).toEqual([
      "2 errors",
      "3 dropped iterations",
      "1 acknowledged orders not in the database",
      "1,200 orders not final",
      "4 watches without a final status",
    ]);
  });

  test("a run without orders is a problem", () => {
    expect(problemsOf({ ...good, placed: 0 })).toEqual(["no orders were placed"]);
  });
});

describe("the report", () => {
  test("the report of a run shows every figure", () => {
    const lines = formatResult(good)
      .split("\n")
      .map((line) => line.replaceAll(/ {2,}/g, " "));
    expect(lines).toContain("placed 6,000");
    expect(lines).toContain("FAILED OUT_OF_STOCK 310");
    expect(lines).toContain("PlaceOrder answered 3.2 8.0 12.0 40.0");
    expect(lines).toContain("placed → final, by the database 11.0 20.0 31.0 90.0");
    expect(lines).toContain("placed → final, as watched – – – –");
    expect(lines).toContain("all 12.00");
    expect(lines).toContain("0.20 cores over 60.0 s, 2,000 µs of CPU per order.");
    expect(lines).toContain("Other programs on this machine used 0.30 cores at the same time.");
  });

  test("a step of the ramp is one line with its verdict", () => {
    expect(formatStep(good, [])).toEndWith("p99     31.0 ms  holds");
    expect(formatStep(good, ["2 errors"])).toEndWith("does not hold: 2 errors");
  });
});
