import { describe, expect, test } from "bun:test";
import { retryAfterMs } from "./gateway-client.ts";

const nowMs = Date.parse("2026-01-01T00:00:00Z");
const wait = (headers: Record<string, string>) => retryAfterMs(new Headers(headers), nowMs);

describe("Retry-After", () => {
  test("in seconds", () => expect(wait({ "retry-after": "7" })).toBe(7_000));
  test("as a date, by our clock", () => {
    expect(wait({ "retry-after": "Thu, 01 Jan 2026 00:00:09 GMT" })).toBe(9_000);
  });
  test("as a date, by the gateway's own clock where it tells it", () => {
    const headers = { "retry-after": "Thu, 01 Jan 2026 01:00:03 GMT", date: "Thu, 01 Jan 2026 01:00:00 GMT" };
    expect(wait(headers)).toBe(3_000);
  });
  test("in the past is no wait", () => expect(wait({ "retry-after": "Wed, 31 Dec 2025 00:00:00 GMT" })).toBe(0));
  test("missing or malformed is no wait", () => {
    expect(wait({})).toBe(0);
    expect(wait({ "retry-after": "soon" })).toBe(0);
  });
  test("is an hour at most", () => expect(wait({ "retry-after": "999999" })).toBe(3_600_000));
});
