import { expect, test } from "bun:test";
import { createRandom } from "../random.ts";
import { createStateTable } from "./state-table.ts";

test("a state table numbers each state once, in the order of the first additions", () => {
  const table = createStateTable(3);
  const known = new Map<string, number>();
  const random = createRandom(1);
  for (let round = 0; round < 50_000; round++) {
    const state = Int32Array.from([random.below(40), random.below(40), random.below(40)]);
    const key = state.join();
    const id = known.get(key);
    expect({ ...table.add(state) }).toEqual({ id: id ?? known.size, isNew: id === undefined });
    known.set(key, id ?? known.size);
  }
  expect(table.size()).toBe(known.size);
  const into = new Int32Array(3);
  for (const [key, id] of known) {
    table.read(id, into);
    expect(into.join()).toBe(key);
  }
});
