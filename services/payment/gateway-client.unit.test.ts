import { describe, expect, test } from "bun:test";
import { retryAfterMs } from "./gateway-client.ts";

const nowMs = Date.parse("2026-01-01T00:00:00Z");
const wait = (headers: Record<string, string>) => retryAfterMs(new Headers(headers), nowMs);

describe("Retry-After", () => {
  test("a Retry-After in seconds is taken as it is", () => expect(wait({ "retry-after": "7" })).toBe(7_000));
  test("a Retry-After date is compared with our clock", () => {
    expect(wait({ "retry-after": "Thu, 01 Jan 2026 00:00:09 GMT" })).toBe(9_000);
  });
  test("a Retry-After date is compared with the gateway's own Date header if there is one", () => {
    const headers = { "retry-after": "Thu, 01 Jan 2026 01:00:03 GMT", date: "Thu, 01 Jan 2026 01:00:00 GMT" };
    expect(wait(headers)).toBe(3_000);
  });
  test("a Retry-After date in the past is no pause", () =>
    expect(wait({ "retry-after": "Wed, 31 Dec 2025 00:00:00 GMT" })).toBe(0));
  test("a missing or malformed Retry-After is no pause", () => {
    expect(wait({})).toBe(0);
    expect(wait({ "retry-after": "soon" })).toBe(0);
  });
  test("a Retry-After pause is at most an hour", () => expect(wait({ "retry-after": "999999" })).toBe(3_600_000));
});
