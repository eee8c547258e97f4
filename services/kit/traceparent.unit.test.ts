import { expect, test } from "bun:test";
import { childTraceparent, traceIdOf } from "./traceparent.ts";

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

test("a child traceparent is a new span of the parent's trace and keeps its flags", () => {
  const child = childTraceparent(parent);
  expect(child).toMatch(/^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-00$/);
  expect(child).not.toBe(parent);
});

test("a missing or malformed traceparent starts a new sampled trace", () => {
  for (const bad of [undefined, "", "garbage", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"]) {
    expect(childTraceparent(bad)).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(traceIdOf(bad)).toBeUndefined();
  }
  expect(traceIdOf(parent)).toBe("4bf92f3577b34da6a3ce929d0e0e4736");
});
