import { expect, test } from "bun:test";
import { silentLogger } from "../../services/kit/log.ts";
import { Assignment } from "./assignment.ts";
import { HandledOffsets } from "./offsets.ts";

/** Handled offsets and what they commit. `fail` makes the next commit fail, once it resolves. */
function open() {
  const assignment = new Assignment();
  const commits: string[] = [];
  const failures: Promise<void>[] = [];
  const attempted = Promise.withResolvers<void>();
  const offsets = new HandledOffsets({
    assignment,
    async commit(some) {
      const text = some.map(({ partition, offset }) => `${partition}:${offset}`).join(" ");
      const failure = failures.shift();
      if (failure !== undefined) {
        attempted.resolve();
        await failure;
        throw new Error("refused");
      }
      commits.push(text);
    },
    log: silentLogger,
  });
  const handled = (partition: number, nextOffset: number, change: { end?: number; generation?: number } = {}) =>
    offsets.add(partition, {
      nextOffset: String(nextOffset),
      endOffset: String(change.end ?? 1_000),
      generation: change.generation ?? assignment.generation,
    });
  return { assignment, offsets, commits, failures, attempted: attempted.promise, handled };
}

test("an offset is never lowered by records that are delivered again", async () => {
  const { offsets, commits, handled } = open();
  handled(0, 100);
  handled(1, 7);
  handled(0, 90);
  await offsets.close();
  expect(commits).toEqual(["0:100 1:7"]);
});

test("an offset goes back where the partition now ends before it: its records are gone", async () => {
  const { offsets, commits, handled } = open();
  handled(0, 100);
  handled(0, 20, { end: 60 });
  handled(0, 10, { end: 60 });
  await offsets.close();
  expect(commits).toEqual(["0:20"]);
});

test("a failed commit restores no older offset: the next one commits what is handled by then", async () => {
  const { offsets, commits, failures, attempted, handled } = open();
  const failure = Promise.withResolvers<void>();
  failures.push(failure.promise);
  handled(0, 100);
  handled(1, 5);
  await attempted;
  handled(0, 110);
  handled(0, 90);
  failure.resolve();
  await offsets.close();
  expect(commits).toEqual(["0:110 1:5"]);
});

test("nothing of an earlier generation is committed, not even by a commit that fails after the group was joined again", async () => {
  const { assignment, offsets, commits, failures, attempted, handled } = open();
  const failure = Promise.withResolvers<void>();
  failures.push(failure.promise);
  handled(0, 100);
  await attempted;
  const { generation } = assignment;
  assignment.renew();
  offsets.clear();
  handled(1, 5, { generation });
  handled(2, 6);
  failure.resolve();
  await offsets.close();
  expect(commits).toEqual(["2:6"]);
});

test("kafkajs does not repeat a commit after the group was joined again", async () => {
  const { default: Runner } = await import(Bun.resolveSync("kafkajs/src/consumer/runner.js", import.meta.dir));
  const noLog = { debug: () => undefined, namespace: () => noLog };
  const generations: number[] = [];
  const consumerGroup = {
    generationId: 1,
    async commitOffsets() {
      generations.push(this.generationId++);
      throw new Error("The request timed out");
    },
  };
  const runner = new Runner({
    logger: noLog,
    consumerGroup,
    retry: { initialRetryTime: 1, retries: 3 },
    concurrency: 1,
  });
  runner.running = true;
  await expect(runner.commitOffsets({ topics: [] })).rejects.toThrow("The group was joined again");
  expect(generations).toEqual([1]);
});
