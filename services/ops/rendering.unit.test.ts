import { expect, test } from "bun:test";
import { counted, cut, duration, list, printable, table } from "./rendering.ts";

test("a table's columns are as wide as they need be, numbers on the right", () => {
  const shown = table(
    ["source", "pending", "owner"],
    [
      ["order", 12_345, null],
      ["inventory", 7, "connection 3"],
    ],
  );
  expect(shown.split("\n")).toEqual([
    "source     pending  owner",
    "─────────  ───────  ────────────",
    "order        12345  –",
    "inventory        7  connection 3",
  ]);
});

test("what a terminal would obey is not passed on, and a cell is one line", () => {
  expect(printable("a\u001b[31mb\tc\nd")).toBe("a�[31mb\tc\nd");
  expect(
    table(["error"], [["one\n  two\u0007"]])
      .split("\n")
      .at(-1),
  ).toBe("one two�");
  expect(list([["last error", "\u001b]0;title"]])).toBe("last error  �]0;title");
});

test("durations in the two largest units that matter", () => {
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

test("long texts are cut, counts have their plural", () => {
  expect(cut("abcdef", 4)).toBe("abc…");
  expect(cut("abcd", 4)).toBe("abcd");
  expect([counted(0, "event"), counted(1, "event"), counted(2, "event")]).toEqual(["0 events", "1 event", "2 events"]);
});
