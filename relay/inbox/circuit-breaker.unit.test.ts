import { expect, test } from "bun:test";
import { createCircuitBreaker } from "./circuit-breaker.ts";

function breakerWithHistory() {
  const changes: boolean[] = [];
  return { changes, ...createCircuitBreaker((isOpen) => changes.push(isOpen)) };
}

test("five different keys that fail in a row open the circuit breaker, and a success closes it", () => {
  const breaker = breakerWithHistory();
  expect(["a", "b", "c", "d"].map(breaker.failed)).toEqual([false, false, false, false]);
  expect(breaker.isOpen()).toBe(false);
  expect([breaker.failed("e"), breaker.failed("e"), breaker.failed("f")]).toEqual([true, true, true]);
  expect(breaker.isOpen()).toBe(true);
  breaker.succeeded();
  expect(breaker.isOpen()).toBe(false);
  expect(breaker.failed("e")).toBe(false);
  expect(breaker.changes).toEqual([true, false]);
});

test("neither one key that keeps failing nor failures with a success in between open the circuit breaker", () => {
  const breaker = breakerWithHistory();
  for (let time = 0; time < 20; time++) expect(breaker.failed("a")).toBe(false);
  for (const key of ["b", "c", "d"]) breaker.failed(key);
  breaker.succeeded();
  expect(breaker.failed("e")).toBe(false);
  expect(breaker.changes).toEqual([]);
});
