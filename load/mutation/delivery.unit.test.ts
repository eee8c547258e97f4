import { expect, test } from "bun:test";
import { join } from "node:path";
import { applyChange } from "./change.ts";
import { deliveryMutants } from "./delivery.ts";
import { resultsIn } from "./test-run.ts";

const root = join(import.meta.dir, "../..");

test.each(deliveryMutants.map((mutant) => [mutant.name, mutant] as const))(
  'the text and the test that the mutant "%s" quotes exist',
  async (_, mutant) => {
    const text = await Bun.file(join(root, mutant.file)).text();
    expect(mutant.changes.reduce((changed, change) => applyChange(changed, change, mutant), text)).not.toBe(text);
    const tests = await Bun.file(join(root, mutant.caughtBy.file)).text();
    expect(tests).toContain(JSON.stringify(mutant.caughtBy.name));
  },
);

test("there are at least ten delivery mutants, and each has its own name", () => {
  expect(deliveryMutants.length).toBeGreaterThanOrEqual(10);
  expect(new Set(deliveryMutants.map(({ name }) => name)).size).toBe(deliveryMutants.length);
});

test("a JUnit report is read into passed and failed tests, without the skipped ones", () => {
  const xml = `<testcase name="a &quot;b&quot;" time="1" /><testcase name="c" time="1"><skipped /></testcase>
    <testcase name="d"><failure type="AssertionError" /></testcase>`;
  expect([...resultsIn(xml)]).toEqual([
    ['a "b"', "passed"],
    ["d", "failed"],
  ]);
});
