import { expect, test } from "bun:test";
import { isDataError, isOutage } from "./database-errors.ts";

/** As mysql2 throws what the server has answered. */
function serverError(errno: number, sqlState: string): Error {
  return Object.assign(new Error("what the server says"), { errno, sqlState });
}

test("a full disk is an outage, and no fault of the data", () => {
  for (const error of [serverError(1114, "HY000"), serverError(1021, "HY000")]) {
    expect(isOutage(error)).toBe(true);
    expect(isDataError(error)).toBe(false);
  }
});

test("a value that does not fit is no outage", () => {
  expect(isOutage(serverError(1406, "22001"))).toBe(false);
});
