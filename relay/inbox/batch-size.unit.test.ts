import { expect, test } from "bun:test";
import { BatchSize } from "./batch-size.ts";

test("a batch that fails is halved until one record is left, and doubled after each success up to its full size", () => {
  const size = new BatchSize(500);
  expect([size.recordsMax, size.isReduced]).toEqual([500, false]);
  const sizes: number[] = [];
  for (let failures = 0; failures < 10; failures++) {
    size.failed(size.recordsMax);
    sizes.push(size.recordsMax);
  }
  expect(sizes).toEqual([250, 125, 62, 31, 15, 7, 3, 1, 1, 1]);
  expect(size.isReduced).toBe(true);
  for (let successes = 0; successes < 9; successes++) size.succeeded(10);
  expect([size.recordsMax, size.isReduced]).toEqual([500, false]);
});

test("a small batch that fails is halved too, and a slow success does not raise the size", () => {
  const size = new BatchSize(500);
  size.failed(20);
  expect(size.recordsMax).toBe(10);
  size.succeeded(4_000);
  expect(size.recordsMax).toBe(10);
  size.succeeded(400);
  expect(size.recordsMax).toBe(20);
});
