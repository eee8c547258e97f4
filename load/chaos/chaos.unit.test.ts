import { expect, test } from "bun:test";
import { faultKinds } from "./faults/all.ts";
import { kill } from "./faults/processes.ts";
import { planFaults } from "./plan.ts";
import { sumOf } from "./processes.ts";

/** The first `count` faults of a plan, each with the first number that it would draw. */
function plan(seed: number, count: number, kinds = faultKinds) {
  return [...planFaults(seed, kinds, () => true).take(count)].map(({ kind, target, random }) => [
    kind.name,
    target,
    random.below(1_000),
  ]);
}

test("the same seed gives the same faults and targets, and another seed gives others", () => {
  expect(plan(7, 60)).toEqual(plan(7, 60));
  expect(plan(7, 60)).not.toEqual(plan(8, 60));
});

test("every kind of fault is injected once before any is repeated, even if the time is already over", () => {
  const kinds = [...planFaults(1, faultKinds, () => false)].map(({ kind }) => kind);
  expect(kinds.length).toBe(faultKinds.length);
  expect(new Set(kinds)).toEqual(new Set(faultKinds));
});

test("every target of a fault gets its turn before any gets a second one", () => {
  const targets = plan(3, 7, [kill]).map(([, target]) => target);
  expect(new Set(targets).size).toBe(7);
});

test("a metric is the sum of the samples whose labels match", () => {
  const text = [
    "# HELP inbox_events_total Records",
    'inbox_events_total{outcome="handled",instance="order"} 3',
    'inbox_events_total{outcome="duplicate",instance="order"} 4',
    'inbox_events_total_other{outcome="duplicate"} 100',
  ].join("\n");
  expect(sumOf(text, "inbox_events_total", {})).toBe(7);
  expect(sumOf(text, "inbox_events_total", { outcome: "duplicate" })).toBe(4);
});
