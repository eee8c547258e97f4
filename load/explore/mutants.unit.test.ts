import { expect, test } from "bun:test";
import { formatVerdict } from "./format.ts";
import { mutants } from "./mutants.ts";
import { judgeMutants } from "./mutation.ts";

test("every mutant of the domain code is caught", async () => {
  const verdicts = await judgeMutants(mutants, (verdict) => console.log(formatVerdict(verdict)));
  expect(verdicts.length).toBeGreaterThanOrEqual(25);
  expect(verdicts.filter(({ caughtBy }) => caughtBy === undefined).map(({ mutant }) => mutant.name)).toEqual([]);
}, 300_000);

test("no two mutants are the same", () => {
  const changes = mutants.map(({ service, from, to }) => `${service}\n${from}\n${to}`);
  expect(new Set(changes).size).toBe(mutants.length);
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
});

test("a change that changes nothing survives", async () => {
  const harmless = {
    name: "the same in other words",
    service: "order",
    from: `return status === "COMPLETED" || status === "FAILED";`,
    to: `return status === "FAILED" || status === "COMPLETED";`,
  } as const;
  const [verdict] = await judgeMutants([harmless]);
  expect(verdict?.caughtBy).toBeUndefined();
});

test.each([
  ["is not there", "no such text", "0 times"],
  ["is there more than once", "state.status", "times instead of once"],
])("a mutant whose text %s is an error", async (_, from, problem) => {
  const mutant = { name: "lost", service: "payment", from, to: "" } as const;
  await expect(judgeMutants([mutant])).rejects.toThrow(problem);
});
