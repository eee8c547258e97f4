import { expect, test } from "bun:test";
import { counted, cut, duration } from "./rendering.ts";

test("durations are shown in their two largest units", () => {
  const seconds = (...values: number[]) => values.map((value) => duration(value * 1_000));
  expect(duration(850)).toBe("850 ms");
  expect(duration(-3)).toBe("0 ms");
  expect(duration(null)).toBeNull();
  expect(seconds(1, 59, 60, 185, 3_600, 7_800, 86_400, 100_000)).toEqual([
    "1 s",
    "59 s",
    "1 min",
    "3 min 5 s",
    "1 h",
    "2 h 10 min",
    "1 d",
    "1 d 3 h",
  ]);
});

test("long texts are cut, and counted nouns have a plural", () => {
  expect(cut("abcdef", 4)).toBe("abc…");
  expect(cut("abcd", 4)).toBe("abcd");
  expect([counted(0, "event"), counted(1, "event"), counted(2, "event")]).toEqual(["0 events", "1 event", "2 events"]);
});
