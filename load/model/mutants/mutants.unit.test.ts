import { expect, test } from "bun:test";
import { formatVerdict } from "../format.ts";
import { judgeMutants } from "./judge.ts";
import { mutants } from "./mutants.ts";

test("the explorer catches every mutant of the domain code", async () => {
  const verdicts = await judgeMutants(mutants, (verdict) => console.log(formatVerdict(verdict)));
  const survivors = verdicts.filter(({ caughtBy }) => caughtBy === undefined);
  console.log(`${verdicts.length} mutants, ${verdicts.length - survivors.length} caught, ${survivors.length} survived`);
  expect(verdicts.length).toBeGreaterThanOrEqual(25);
  expect(survivors.map(({ mutant }) => mutant.name)).toEqual([]);
}, 300_000);

test("no two mutants have the same change or the same name", () => {
  const changes = mutants.map(({ service, from, to }) => `${service}\n${from}\n${to}`);
  expect(new Set(changes).size).toBe(mutants.length);
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
});

test("a mutant that does not change the behaviour survives", async () => {
  const harmless = {
    name: "writes the same condition in another order",
    service: "order",
    from: `return status === "COMPLETED" || status === "FAILED";`,
    to: `return status === "FAILED" || status === "COMPLETED";`,
  } as const;
  const [verdict] = await judgeMutants([harmless]);
  expect(verdict?.caughtBy).toBeUndefined();
});

test.each([
  ["is missing", "no such text", "0 times"],
  ["occurs more than once", "state.status", "times instead of once"],
])("a mutant whose text %s is an error", async (_, from, problem) => {
  const mutant = { name: "outdated", service: "payment", from, to: "" } as const;
  await expect(judgeMutants([mutant])).rejects.toThrow(problem);
});
