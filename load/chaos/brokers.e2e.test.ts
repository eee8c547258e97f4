/** Faults that only several brokers and instances can have, each once. `npm run chaos -- --brokers 3` has more of them. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { environment } from "../../services/kit/config.ts";
import { parseInstances } from "../../services/stack/settings.ts";
import { runChaos } from "./chaos.ts";
import { belowInsyncMin, leaderFrozen, leaderKilled, twoBrokersFrozen } from "./faults/brokers.ts";
import { instanceFrozen } from "./faults/instances.ts";
import { formatChaos } from "./report.ts";
import { readChaosSettings } from "./settings.ts";

test("with three brokers and two instances each, a lost or frozen leader, a partition that refuses, two frozen brokers and a frozen instance lose nothing, and every promise holds", async () => {
  const kinds = [leaderKilled, leaderFrozen, belowInsyncMin, twoBrokersFrozen, instanceFrozen].map(({ name }) => name);
  const result = await runChaos({
    settings: readChaosSettings(environment(), join(import.meta.dir, "../.."), 3),
    instances: parseInstances("order=2,inventory=2,payment=2,relay=2"),
    durationMs: 0,
    ratePerSecond: 10,
    seed: Math.floor(Math.random() * 2 ** 31),
    only: kinds,
  });
  console.log(formatChaos(result));
  expect(result.problems).toEqual([]);
  expect(result.faults.map(({ kind }) => kind).sort()).toEqual(kinds.toSorted());
  for (const { kind, witnesses } of result.faults)
    expect({ kind, isProven: witnesses.length > 0 }).toEqual({ kind, isProven: true });
  expect(result.acknowledged).toBeGreaterThan(100);
  expect(result.audit.ok).toBe(true);
}, 480_000);
