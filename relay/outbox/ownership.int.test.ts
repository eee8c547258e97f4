/** How replicas spread sources among them: real locks, of tables that need not be there. */
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
  /** The tables that it owns. */
  owned(): readonly string[];
  close(): Promise<unknown>;
}

/** One process's claims on `tables`. `onLoss` is what its relays still do after a loss. */
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
/** Every source has one owner: none has two, at any time that one looks. */
function expectOneOwnerEach(replicas: readonly Replica[], tables: readonly string[]) {
  expect(replicas.flatMap(({ owned }) => owned()).sort()).toEqual([...tables].sort());
}

// Mostly they wait: side by side, each with tables of its own.
test.concurrent("replicas that come later get their share, source by source; what one leaves the others take within 5 s", async () => {
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

  // Spread evenly, they stay where they are.
  const settled = all.map(({ owned }) => owned());
  await Bun.sleep(4_000);
  expect(all.map(({ owned }) => owned())).toEqual(settled);

  await first.close();
  await eventually(() => expectOneOwnerEach([second, third], tables), 5_000);
  await eventually(() => expect(counts([second, third])).toEqual([2, 3]), 20_000);
}, 60_000);

test.concurrent("a source that is let go of for another replica is the other's only when what was under way is done", async () => {
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

test.concurrent("a source on its own does not move", async () => {
  const first = startReplica(["alone"]);
  await eventually(() => expect(first.owned()).toEqual(["alone"]));
  const second = startReplica(["alone"]);
  await Bun.sleep(4_500);
  expect([first.owned(), second.owned()]).toEqual([["alone"], []]);
}, 30_000);
