import { expect, test } from "bun:test";
import { UnavailableError } from "./errors.ts";
import { createGroupCommit } from "./group-commit.ts";

/** A commit that waits until it is released, and notes its groups. */
function gated(fails: (item: string) => Error | undefined = () => undefined) {
  const groups: string[][] = [];
  let release = Promise.withResolvers<void>();
  const commit = async (items: readonly string[]) => {
    groups.push([...items]);
    await release.promise;
    for (const item of items) {
      const error = fails(item);
      if (error !== undefined) throw error;
    }
    return items.map((item) => item.toUpperCase());
  };
  return {
    groups,
    commit,
    release() {
      release.resolve();
      release = Promise.withResolvers();
      release.resolve();
    },
  };
}
const limits = { sizeMax: 3, waitingMax: 10, isOutage: (error: unknown) => error instanceof UnavailableError };

test("an item that finds nothing under way is committed at once, alone; what arrives meanwhile shares the next groups", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, commit: gate.commit });
  const results = [group.submit("a")];
  // No wait when idle: the commit has begun in this very turn.
  expect(gate.groups).toEqual([["a"]]);
  for (const item of ["b", "c", "d", "e"]) results.push(group.submit(item));
  gate.release();
  expect(await Promise.all(results)).toEqual(["A", "B", "C", "D", "E"]);
  expect(gate.groups).toEqual([["a"], ["b", "c", "d"], ["e"]]);
});

test("a bad item fails alone", async () => {
  const gate = gated((item) => (item === "bad" ? new Error("bad") : undefined));
  const group = createGroupCommit({ ...limits, commit: gate.commit });
  const results = ["first", "good", "bad", "fine"].map((item) => group.submit(item));
  gate.release();
  expect((await Promise.allSettled(results)).map((result) => result.status)).toEqual([
    "fulfilled",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  expect(gate.groups.slice(1)).toEqual([["good", "bad", "fine"], ["good"], ["bad"], ["fine"]]);
});

test("an outage fails the whole group without trying each", async () => {
  const gate = gated((item) => (item === "b" ? new UnavailableError("away") : undefined));
  const group = createGroupCommit({ ...limits, commit: gate.commit });
  const results = ["a", "b", "c"].map((item) => group.submit(item));
  gate.release();
  expect((await Promise.allSettled(results)).map((result) => result.status)).toEqual([
    "fulfilled",
    "rejected",
    "rejected",
  ]);
  expect(gate.groups).toEqual([["a"], ["b", "c"]]);
});

test("items with one key never share a group", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, commit: gate.commit, keyOf: (item) => item[0] ?? "" });
  const results = ["x", "a1", "a2", "b1"].map((item) => group.submit(item));
  gate.release();
  await Promise.all(results);
  expect(gate.groups).toEqual([["x"], ["a1", "b1"], ["a2"]]);
});

test("an item that was given up before its turn is not committed", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, commit: gate.commit });
  const first = group.submit("a");
  const given = new AbortController();
  const second = group.submit("b", given.signal);
  given.abort(new Error("too late"));
  gate.release();
  await first;
  await expect(second).rejects.toThrow("too late");
  expect(gate.groups).toEqual([["a"]]);
});

test("more than may wait are refused", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, waitingMax: 1, commit: gate.commit });
  const first = group.submit("a");
  const second = group.submit("b");
  await expect(group.submit("c")).rejects.toBeInstanceOf(UnavailableError);
  gate.release();
  await Promise.all([first, second]);
});

test("an item that comes in the very turn in which the last one was answered is not forgotten", async () => {
  const group = createGroupCommit({ ...limits, commit: async (items: readonly string[]) => items });
  for (let round = 0; round < 10; round++) {
    await group.submit("a");
    expect(await Promise.race([group.submit("b"), Bun.sleep(1_000)])).toBe("b");
  }
  await group.close();
});
