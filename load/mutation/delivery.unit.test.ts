import { expect, test } from "bun:test";
import { join } from "node:path";
import { applyChange } from "./change.ts";
import { deliveryMutants } from "./delivery.ts";
import { resultsIn } from "./judge.ts";

const root = join(import.meta.dir, "../..");

test.each(deliveryMutants.map((mutant) => [mutant.name, mutant] as const))(
  "%s: its text is in the code",
  async (_, it) => {
    const text = await Bun.file(join(root, it.file)).text();
    expect(it.changes.reduce((changed, change) => applyChange(changed, change, it), text)).not.toBe(text);
    expect(await Bun.file(join(root, it.caughtBy.file)).text()).toContain(JSON.stringify(it.caughtBy.name));
  },
);

test("there are enough of them, and no two have a name", () => {
  expect(deliveryMutants.length).toBeGreaterThanOrEqual(10);
  expect(new Set(deliveryMutants.map(({ name }) => name)).size).toBe(deliveryMutants.length);
});

test("a report tells passed, failed and skipped apart", () => {
  const xml = `<testcase name="a &quot;b&quot;" time="1" /><testcase name="c" time="1"><skipped /></testcase>
    <testcase name="d"><failure type="AssertionError" /></testcase>`;
  expect([...resultsIn(xml)]).toEqual([
    ['a "b"', "passed"],
    ["d", "failed"],
  ]);
});
