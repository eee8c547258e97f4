/** How replicas spread sources among them, with real locks. The tables of the locks need not exist. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { silentLogger } from "../../services/kit/log.ts";
import { createTestSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { claimOwnership, type Ownership } from "./ownership.ts";
import { createOwnedSources } from "./source-lock.ts";

let schema: TestSchema;
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  schema = await createTestSchema();
});
afterAll(async () => {
  await Promise.all(closers.map((close) => close()));
  await schema.drop();
});

interface Replica {
  readonly sources: readonly Ownership[];
  /** The tables that this replica owns. */
  owned(): readonly string[];
  close(): Promise<unknown>;
}

/** Starts one process's claims on `tables`. `onLoss` stands for the work that its relays still finish after a loss. */
function startReplica(tables: readonly string[], onLoss: () => Promise<unknown> = async () => undefined): Replica {
  const ownedSources = createOwnedSources();
  const sources = tables.map((table) => {
    const claim = claimOwnership({
      databaseUrl: schema.url,
      schema: schema.name,
      table,
      log: silentLogger,
      ownedSources,
    });
    claim.onChange(async (owned) => {
      if (!owned) await onLoss();
    });
    return claim;
  });
  const close = () => Promise.all(sources.map((source) => source.close()));
  closers.push(close);
  return { sources, owned: () => tables.filter((_, index) => sources[index]?.isFresh()), close };
}

const counts = (replicas: readonly Replica[]) => replicas.map(({ owned }) => owned().length).sort();
/** Expects that every source has exactly one owner. */
function expectOneOwnerEach(replicas: readonly Replica[], tables: readonly string[]) {
  expect(replicas.flatMap(({ owned }) => owned()).sort()).toEqual([...tables].sort());
}

// These tests mostly wait, so they run at the same time, each with its own tables.
test.concurrent("replicas that start later get their share of the sources, and take over those of a closed replica within 5 s", async () => {
  const tables = ["a", "b", "c", "d", "e"];
  const first = startReplica(tables);
  await eventually(() => expect(first.owned().length).toBe(5));
  const second = startReplica(tables);
  const third = startReplica(tables);
  const all = [first, second, third];
  await eventually(() => {
    const seen = all.flatMap(({ owned }) => owned());
    expect(new Set(seen).size).toBe(seen.length);
    expect(counts(all)).toEqual([1, 2, 2]);
  }, 20_000);
  expectOneOwnerEach(all, tables);

  // Once spread evenly, the sources stay where they are.
  const settled = all.map(({ owned }) => owned());
  await Bun.sleep(4_000);
  expect(all.map(({ owned }) => owned())).toEqual(settled);

  await first.close();
  await eventually(() => expectOneOwnerEach([second, third], tables), 5_000);
  await eventually(() => expect(counts([second, third])).toEqual([2, 3]), 20_000);
}, 60_000);

test.concurrent("a source that is handed over gets its new owner only when the old one has nothing in flight", async () => {
  const tables = ["x", "y"];
  const underWay = Promise.withResolvers<void>();
  let losses = 0;
  const first = startReplica(tables, () => {
    losses++;
    return underWay.promise;
  });
  await eventually(() => expect(first.owned().length).toBe(2));
  const second = startReplica(tables);
  await eventually(() => expect(losses).toBe(1), 10_000);
  expect(first.owned().length).toBe(1);
  await Bun.sleep(1_500);
  expect(second.owned()).toEqual([]);
  underWay.resolve();
  await eventually(() => expect(counts([first, second])).toEqual([1, 1]), 3_000);
  expectOneOwnerEach([first, second], tables);
}, 30_000);

test.concurrent("a process that owns a single source does not hand it over", async () => {
  const first = startReplica(["alone"]);
  await eventually(() => expect(first.owned()).toEqual(["alone"]));
  const second = startReplica(["alone"]);
  await Bun.sleep(4_500);
  expect([first.owned(), second.owned()]).toEqual([["alone"], []]);
}, 30_000);
