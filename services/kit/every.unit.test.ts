import { expect, test } from "bun:test";
import { every } from "./every.ts";

const ignore = () => undefined;

test("scheduled work runs after one interval, or at once if asked to", async () => {
  const runs: string[] = [];
  const later = every(60_000, async () => runs.push("later"), ignore);
  const now = every(60_000, async () => runs.push("now"), ignore, { startNow: true });
  await Promise.resolve();
  expect(runs).toEqual(["now"]);
  await Promise.all([later.close(), now.close()]);
  expect(runs).toEqual(["now"]);
});

test("scheduled work goes on after a run that failed, and closing waits for the current run", async () => {
  const errors: unknown[] = [];
  let runs = 0;
  const second = Promise.withResolvers<void>();
  let ended = false;
  const schedule = every(
    1,
    async (signal) => {
      if (++runs === 1) throw new Error("broken");
      second.resolve();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      ended = true;
    },
    (error) => errors.push(error),
  );
  await second.promise;
  await schedule.close();
  expect(ended).toBe(true);
  expect(runs).toBe(2);
  expect(errors).toEqual([new Error("broken")]);
});
