import { expect, test } from "bun:test";
import { planFaults } from "./chaos.ts";
import { faultKinds } from "./faults.ts";
import { sumOf } from "./stack.ts";

/** The first `count` faults of a plan, with what each would draw first. */
function plan(seed: number, count: number, only: readonly string[] = []) {
  return [...planFaults(seed, only, () => true).take(count)].map(({ kind, target, random }) => [
    kind.name,
    target,
    random.below(1_000),
  ]);
}

test("a seed gives the same faults on the same targets again, and another one gives others", () => {
  expect(plan(7, 60)).toEqual(plan(7, 60));
  expect(plan(7, 60)).not.toEqual(plan(8, 60));
});

test("every kind comes once before any comes twice, also when the time is over from the start", () => {
  const kinds = [...planFaults(1, [], () => false)].map(({ kind }) => kind);
  expect(kinds.length).toBe(faultKinds.length);
  expect(new Set(kinds)).toEqual(new Set(faultKinds));
});

test("every target has its turn before any has its second", () => {
  const targets = plan(3, 7, ["kill"]).map(([, target]) => target);
  expect(new Set(targets).size).toBe(7);
});

test("a metric's samples are added up, and only those with the labels", () => {
  const text = [
    "# HELP inbox_events_total Records",
    'inbox_events_total{outcome="handled",instance="order"} 3',
    'inbox_events_total{outcome="duplicate",instance="order"} 4',
    'inbox_events_total_other{outcome="duplicate"} 100',
  ].join("\n");
  expect(sumOf(text, "inbox_events_total", {})).toBe(7);
  expect(sumOf(text, "inbox_events_total", { outcome: "duplicate" })).toBe(4);
});
