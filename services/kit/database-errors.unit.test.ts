import { expect, test } from "bun:test";
import { isDataError, isOutage } from "./database-errors.ts";

/** An error as mysql2 throws it for a server's answer. */
function serverError(errno: number, sqlState: string): Error {
  return Object.assign(new Error("from the server"), { errno, sqlState });
}

test("a full disk is an outage, not a data error", () => {
  for (const error of [serverError(1114, "HY000"), serverError(1021, "HY000")]) {
    expect(isOutage(error)).toBe(true);
    expect(isDataError(error)).toBe(false);
  }
});

test("a statement on a connection that the server has closed is an outage, although the driver gives the error no code", () => {
  const error = Object.assign(new Error("Can't add new command when connection is in closed state"), { fatal: true });
  expect(isOutage(error)).toBe(true);
});

test("a value that is too long for its column is not an outage", () => {
  expect(isOutage(serverError(1406, "22001"))).toBe(false);
});
