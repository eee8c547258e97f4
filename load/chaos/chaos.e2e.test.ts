/** Injects every kind of fault once, into the real processes under load. `npm run chaos` runs for longer. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { environment } from "../../services/kit/config.ts";
import { runChaos } from "./chaos.ts";
import { faultKinds } from "./faults/all.ts";
import { formatChaos } from "./report.ts";
import { readChaosSettings } from "./settings.ts";

test("every kind of fault interrupts work in flight, and afterwards every promise holds", async () => {
  const result = await runChaos({
    settings: readChaosSettings(environment(), join(import.meta.dir, "../..")),
    durationMs: 0,
    ratePerSecond: 10,
    seed: Math.floor(Math.random() * 2 ** 31),
  });
  console.log(formatChaos(result));
  expect(result.problems).toEqual([]);
  expect(result.faults.map(({ kind }) => kind).sort()).toEqual(faultKinds.map(({ name }) => name).sort());
  for (const { kind, witnesses, skipped } of result.faults) {
    expect({ kind, isProven: witnesses.length > 0 || skipped !== undefined }).toEqual({ kind, isProven: true });
  }
  expect(result.acknowledged).toBeGreaterThan(100);
  expect(result.audit.ok).toBe(true);
}, 480_000);
