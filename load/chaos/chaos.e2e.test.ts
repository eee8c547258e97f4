/** Every kind of fault once, on the real processes under load; `npm run chaos` goes on for longer. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { environment } from "../../services/kit/config.ts";
import { runChaos } from "./chaos.ts";
import { faultKinds } from "./faults.ts";
import { formatChaos } from "./report.ts";
import { readChaosSettings } from "./settings.ts";

test("each kind of fault hits something under way, and afterwards every promise is kept", async () => {
  const result = await runChaos({
    settings: readChaosSettings(environment(), join(import.meta.dir, "../..")),
    durationMs: 0,
    ratePerSecond: 10,
    seed: Math.floor(Math.random() * 2 ** 31),
  });
  console.log(formatChaos(result));
  expect(result.wrongs).toEqual([]);
  expect(result.faults.map(({ kind }) => kind).sort()).toEqual(faultKinds.map(({ name }) => name).sort());
  for (const { kind, witnesses, skipped } of result.faults) {
    expect({ kind, isShown: witnesses.length > 0 || skipped !== undefined }).toEqual({ kind, isShown: true });
  }
  expect(result.acknowledged).toBeGreaterThan(100);
  expect(result.audit?.ok).toBe(true);
}, 480_000);
