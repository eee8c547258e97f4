import { expect, test } from "bun:test";
import { UnavailableError } from "./errors.ts";
import { createGroupCommit } from "./group-commit.ts";

/** A commit that waits until it is released and records its groups. */
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

test("an item that arrives while nothing is being committed is committed at once, alone; later items share the next groups", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, commit: gate.commit });
  const results = [group.submit("a")];
  // No wait when idle: the commit starts in the same turn of the event loop.
  expect(gate.groups).toEqual([["a"]]);
  for (const item of ["b", "c", "d", "e"]) results.push(group.submit(item));
  gate.release();
  expect(await Promise.all(results)).toEqual(["A", "B", "C", "D", "E"]);
  expect(gate.groups).toEqual([["a"], ["b", "c", "d"], ["e"]]);
});

test("if a group fails, each item is retried alone and only the bad one fails", async () => {
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

test("an outage fails the whole group without retrying each item", async () => {
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

test("items with the same key never share a group", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, commit: gate.commit, keyOf: (item) => item[0] ?? "" });
  const results = ["x", "a1", "a2", "b1"].map((item) => group.submit(item));
  gate.release();
  await Promise.all(results);
  expect(gate.groups).toEqual([["x"], ["a1", "b1"], ["a2"]]);
});

for (const [what, keyOf] of [
  ["of different keys", (item: string) => item],
  ["of one key", () => "key"],
] as const) {
  test(`forming a group looks at no more items than fit it, however many wait: items ${what}`, async () => {
    const gate = gated();
    let looks = 0;
    const counted = (item: string) => {
      looks++;
      return keyOf(item);
    };
    const group = createGroupCommit({ ...limits, waitingMax: 5_000, commit: gate.commit, keyOf: counted });
    const results = Array.from({ length: 500 }, (_, index) => group.submit(`${index}`));
    gate.release();
    expect(await Promise.all(results)).toHaveLength(500);
    expect(gate.groups.flat()).toEqual(Array.from({ length: 500 }, (_, index) => `${index}`));
    expect(looks).toBeLessThanOrEqual(gate.groups.length * limits.sizeMax);
  });
}

test("items that are given up do not end a group before those that still wait", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, waitingMax: 100, commit: gate.commit });
  const first = group.submit("a");
  const given = Array.from({ length: 50 }, () => group.submit("late", AbortSignal.abort(new Error("too late"))));
  const last = group.submit("b");
  gate.release();
  await first;
  expect(await last).toBe("B");
  expect((await Promise.allSettled(given)).every(({ status }) => status === "rejected")).toBe(true);
});

test("an item whose signal is aborted before its group starts is not committed", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, commit: gate.commit });
  const first = group.submit("a");
  const giveUp = new AbortController();
  const second = group.submit("b", giveUp.signal);
  giveUp.abort(new Error("too late"));
  gate.release();
  await first;
  await expect(second).rejects.toThrow("too late");
  expect(gate.groups).toEqual([["a"]]);
});

test("an item is refused once the maximum number of items is waiting", async () => {
  const gate = gated();
  const group = createGroupCommit({ ...limits, waitingMax: 1, commit: gate.commit });
  const first = group.submit("a");
  const second = group.submit("b");
  await expect(group.submit("c")).rejects.toBeInstanceOf(UnavailableError);
  gate.release();
  await Promise.all([first, second]);
});

test("an item that arrives in the same turn in which the last group ended is still committed", async () => {
  const group = createGroupCommit({ ...limits, commit: async (items: readonly string[]) => items });
  for (let round = 0; round < 10; round++) {
    await group.submit("a");
    expect(await Promise.race([group.submit("b"), Bun.sleep(1_000)])).toBe("b");
  }
  await group.close();
});
