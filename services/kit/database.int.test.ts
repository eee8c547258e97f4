/** Transactions on a real server: what is committed, what is rolled back, and which error the caller gets. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { Database } from "./database.ts";
import { isDuplicateKey, RowsChangedError } from "./database-errors.ts";
import { insertStatements, type Statement, updateStatements } from "./statements.ts";
import { createTestSchema, readCounters, type TestSchema } from "./testing.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createTestSchema();
  database = schema.open();
  await database.execute("CREATE TABLE item (id INT PRIMARY KEY, version INT NOT NULL)");
});
afterAll(() => schema.drop());
beforeEach(async () => {
  await database.execute("DELETE FROM item");
  await insert([1, 2, 3]);
});

const insert = (ids: readonly number[]) => database.commit(inserting(ids));
const inserting = (ids: readonly number[]) =>
  insertStatements(
    "item",
    ["id", "version"],
    ids.map((id) => [id, 1]),
  );
/** Updates items from version 1 to version 2. */
const advancing = (ids: readonly number[]): readonly Statement[] =>
  updateStatements({
    table: "item",
    columns: ["id", "version"],
    rows: ids.map((id) => [id, 2]),
    guard: "target.version = next.version - 1",
  });
const rows = async () =>
  (await database.query<{ id: number; version: number }>("SELECT id, version FROM item ORDER BY id")).map(
    ({ id, version }) => [id, version],
  );
const many = Array.from({ length: 60 }, (_, index) => 100 + index);

test("a transaction sends its last statements and one COMMIT together", async () => {
  const before = await readCounters("Com_commit");
  await database.transaction(async (transaction) => {
    await transaction.query("SELECT * FROM item WHERE id = 1 FOR UPDATE");
    await transaction.commit([...advancing([1, 2]), ...inserting([4])]);
  });
  expect(await rows()).toEqual([
    [1, 2],
    [2, 2],
    [3, 1],
    [4, 1],
  ]);
  expect(((await readCounters("Com_commit")).get("Com_commit") ?? 0) - (before.get("Com_commit") ?? 0)).toBe(1);
});

// Fewer and more rows than the limit at which an update becomes a derived table.
for (const ids of [[1, 2], many]) {
  test(`an update of ${ids.length} rows of which one has changed or is gone rolls back the whole transaction`, async () => {
    if (ids === many) await insert(many);
    const [first = 0] = ids;
    const before = await rows();
    for (const spoil of [`UPDATE item SET version = 7 WHERE id = ${first}`, `DELETE FROM item WHERE id = ${first}`]) {
      await database.execute("DELETE FROM item WHERE id = ?", [first]);
      await insert([first]);
      await database.execute(spoil);
      const spoiled = await rows();
      const both = [...advancing(ids), ...inserting([9])];
      await expect(database.transaction((it) => it.commit(both))).rejects.toBeInstanceOf(RowsChangedError);
      await expect(database.transaction((it) => it.pipeline(both))).rejects.toBeInstanceOf(RowsChangedError);
      await expect(database.commit(both)).rejects.toBeInstanceOf(RowsChangedError);
      expect(await rows()).toEqual(spoiled);
    }
    await database.execute("DELETE FROM item WHERE id = ?", [first]);
    await insert([first]);
    expect(await rows()).toEqual(before);
    await database.commit([...advancing(ids), ...inserting([9])]);
    expect(await rows()).toContainEqual([first, 2]);
  });
}

test("a statement that fails rolls back those before it, and the connection can be used again", async () => {
  const one = schema.open(1);
  const failing = [...advancing([1]), ...inserting([2])];
  const error = await one.transaction((it) => it.commit(failing)).catch((it) => it);
  expect(isDuplicateKey(error)).toBe(true);
  expect(isDuplicateKey(await one.commit(failing).catch((it) => it))).toBe(true);
  expect(await rows()).toEqual([
    [1, 1],
    [2, 1],
    [3, 1],
  ]);
  await one.transaction((it) => it.pipeline(advancing([3])));
  expect(await rows()).toContainEqual([3, 2]);
});
