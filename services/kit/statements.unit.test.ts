import { describe, expect, test } from "bun:test";
import { insertStatements, updateStatements } from "./statements.ts";

const rowsOf = (count: number) => Array.from({ length: count }, (_, index) => [`sku-${index}`, index] as const);
const update = (count: number) => updateStatements({ table: "stock", columns: ["sku", "held"], rows: rowsOf(count) });
const branchesIn = (sql: string) => sql.split("UNION ALL").length;

describe("a change of many rows", () => {
  test("no statement has more than 1,000 rows, and each expects just its own", () => {
    const statements = update(2_500);
    expect(statements.map(({ rowsExpected }) => rowsExpected)).toEqual([1_000, 1_000, 500]);
    expect(statements.map(({ sql }) => branchesIn(sql))).toEqual([1_000, 1_000, 500]);
    expect(statements.flatMap(({ values }) => values)).toEqual(rowsOf(2_500).flat());

    const inserts = insertStatements("stock", ["sku", "held"], rowsOf(2_500));
    expect(inserts.map(({ values: [rows] }) => (rows as unknown[]).length)).toEqual([1_000, 1_000, 500]);
    expect(inserts.flatMap(({ values: [rows] }) => rows)).toEqual(rowsOf(2_500));
  });

  test("a usual batch takes one statement, and no rows take none", () => {
    for (const count of [1, 50, 51, 500, 1_000]) {
      expect(update(count)).toHaveLength(1);
      expect(insertStatements("stock", ["sku", "held"], rowsOf(count))).toHaveLength(1);
    }
    expect([...update(0), ...insertStatements("stock", ["sku", "held"], [])]).toEqual([]);
  });
});
