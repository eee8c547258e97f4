/** Runs the benchmark with few rows and checks that it measures correctly. Speed is not checked. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readTopic } from "../../relay/testing.ts";
import { testServers } from "../../services/kit/testing.ts";
import { measureSerially, measureTextbook } from "./baselines.ts";
import { BenchOutbox } from "./outbox.ts";
import { benchmarkRelay } from "./relay.ts";
import { startRelayProcess } from "./relay-process.ts";
import { goalsOf } from "./report.ts";

const rows = 1_200;

describe("every relay that the benchmark compares", () => {
  let outbox: BenchOutbox;
  beforeAll(async () => {
    outbox = await BenchOutbox.create(testServers(), { keys: 40 });
  });
  afterAll(() => outbox.drop());

  const relayProcess = async () => {
    const relay = await startRelayProcess(outbox);
    await outbox.untilDrained(rows);
    expect(await relay.memoryMaxMegabytes()).toBeGreaterThan(0);
    await relay.stop();
  };
  for (const [name, deliver] of [
    ["the relay process", relayProcess],
    ["the serial baseline", () => measureSerially(outbox, { batchRows: 500, warmUpRows: 0 })],
    ["the textbook relay", () => measureTextbook(outbox, 1)],
  ] as const) {
    test(`${name} delivers every row once, in order per key, and marks it`, async () => {
      await outbox.empty();
      await outbox.fill(rows, "PENDING");
      const events = await outbox.database.query<{ id: string; aggregateId: string; bytes: number }>(
        `SELECT id, aggregate_id AS aggregateId, LENGTH(payload) AS bytes FROM ${outbox.table} ORDER BY seq`,
      );
      expect(events[0]?.bytes).toBe(300);
      await deliver();
      expect(await outbox.database.query(`SELECT status, COUNT(*) AS n FROM ${outbox.table} GROUP BY status`)).toEqual([
        { status: "PUBLISHED", n: rows },
      ]);

      const ids = new Set(events.map(({ id }) => id));
      const isOurs = ({ headers }: { readonly headers?: Readonly<Record<string, unknown>> | undefined }) =>
        ids.has(String(headers?.ce_id));
      const records = await readTopic(outbox.topic, (read) => read.filter(isOurs).length >= rows);
      const arrived = records.filter(isOurs).map(({ key, headers }) => ({
        id: String(headers?.ce_id),
        aggregateId: new TextDecoder().decode(key ?? undefined),
      }));
      const byKey = (list: readonly { readonly id: string; readonly aggregateId: string }[]) =>
        Object.fromEntries(
          [...Map.groupBy(list, ({ aggregateId }) => aggregateId)]
            .map(([key, group]) => [key, group.map(({ id }) => id)] as const)
            .sort(([a], [b]) => a.localeCompare(b)),
        );
      expect(byKey(arrived)).toEqual(byKey(events));
    });
  }
});

test("a run of the benchmark has every figure, and compares each with its goal", async () => {
  const result = await benchmarkRelay({
    ...testServers(),
    rows: 2_000,
    textbookRows: 100,
    publishedRows: 1_000,
    rounds: 1,
    latencySeconds: 0.4,
    idleSeconds: 0.5,
    report: () => undefined,
  });
  const figures = goalsOf(result).map(({ value }) => value);
  expect(figures.length).toBe(9);
  expect(figures.filter((value) => !Number.isFinite(value))).toEqual([]);
  expect(result.latencyMs.count).toBe(40);
  expect(result.floorLatencyMs.count).toBe(40);
});
