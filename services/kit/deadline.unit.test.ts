import { expect, test } from "bun:test";
import { endsWithin, withDeadline } from "./deadline.ts";

const late = () => new Error("too late");

test("work that ends before its deadline resolves or rejects as it would without one", async () => {
  expect(await withDeadline(Promise.resolve(1), 60_000, late)).toBe(1);
  expect(withDeadline(Promise.reject(new Error("broken")), 60_000, late)).rejects.toThrow("broken");
});

test("work that misses its deadline rejects with the caller's error, and its own later failure is dropped", async () => {
  const work = Promise.withResolvers<number>();
  await expect(withDeadline(work.promise, 1, late)).rejects.toThrow("too late");
  work.reject(new Error("broken afterwards"));
  // An unhandled rejection would fail this test.
  await new Promise((resolve) => setImmediate(resolve));
});

test("a limited wait returns whether the work ended in time, and throws what the work throws", async () => {
  expect(await endsWithin(Promise.resolve(), 60_000)).toBe(true);
  expect(await endsWithin(new Promise(() => undefined), 1)).toBe(false);
  expect(endsWithin(Promise.reject(new Error("broken")), 60_000)).rejects.toThrow("broken");
});
