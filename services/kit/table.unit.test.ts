import { expect, test } from "bun:test";
import { formatList, formatTable, printable } from "./table.ts";

test("each column of a table is as wide as its widest cell, and numbers are right-aligned", () => {
  const shown = formatTable(
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

test("a column of formatted figures is right-aligned if the caller says so", () => {
  const shown = formatTable(
    ["orders", ""],
    [
      ["placed", "1,000"],
      ["lost", "0"],
    ],
    { rightAligned: [1] },
  );
  expect(shown.split("\n")).toEqual(["orders", "──────  ─────", "placed  1,000", "lost        0"]);
});

test("a table replaces control characters and shows each cell on one line", () => {
  expect(printable("a\u001b[31mb\tc\nd")).toBe("a�[31mb\tc\nd");
  expect(
    formatTable(["error"], [["one\n  two\u0007"]])
      .split("\n")
      .at(-1),
  ).toBe("one two�");
  expect(formatList([["last error", "\u001b]0;title"]])).toBe("last error  �]0;title");
});
