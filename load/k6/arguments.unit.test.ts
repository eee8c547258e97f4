import { describe, expect, test } from "bun:test";
import { parseLoadArguments } from "./arguments.ts";

describe("parseLoadArguments", () => {
  test("arguments have defaults, and a ramp has shorter steps", () => {
    const defaults = { ratePerSecond: 100, seconds: 60, watchShare: 0.1, ramp: false, json: false };
    expect(parseLoadArguments([])).toEqual(defaults);
    expect(parseLoadArguments(["--ramp"])).toEqual({ ...defaults, ramp: true, seconds: 10 });
  });

  test("options override the defaults", () => {
    expect(parseLoadArguments(["--rate", "250", "--seconds=5", "--watch-share", "0", "--json"])).toEqual({
      ratePerSecond: 250,
      seconds: 5,
      watchShare: 0,
      ramp: false,
      json: true,
    });
  });

  for (const [args, problem] of [
    [["--rate", "0"], "--rate takes a whole number from 1"],
    [["--rate", "1.5"], "--rate takes a whole number"],
    [["--seconds", "soon"], "--seconds takes a whole number"],
    [["--watch-share", "1"], "--watch-share takes a number from 0 to 0.9"],
    [["--watch-share", ""], "--watch-share takes a number"],
    [["--fast"], "--fast"],
    [["100"], "100"],
  ] as const) {
    test(`the arguments ${args.join(" ")} are rejected with a message that names the problem`, () => {
      expect(() => parseLoadArguments(args)).toThrow(problem);
    });
  }
});
