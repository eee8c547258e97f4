import { expect, test } from "bun:test";
import { crashAtPoints } from "./crash-points.ts";
import { formatCrashPoints } from "./format.ts";
import { points } from "./points.ts";

test("three crashes at every crash point lose no event, reorder none and give none a second effect", async () => {
  const results = await crashAtPoints({ times: 3 });
  console.log(formatCrashPoints(results));
  expect(results.map(({ point, witnesses, problems }) => ({ point, witnesses, problems }))).toEqual(
    points.map((point) => ({ point, witnesses: 3, problems: [] })),
  );
}, 120_000);
