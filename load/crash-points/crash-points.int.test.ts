import { expect, test } from "bun:test";
import { sweep } from "./crash-points.ts";
import { formatSweep } from "./format.ts";
import { points } from "./points.ts";

test("killed three times at every point, nothing is lost, out of order, or done twice", async () => {
  const results = await sweep({ times: 3 });
  console.log(formatSweep(results));
  expect(results.map(({ point, witnesses, problems }) => ({ point, witnesses, problems }))).toEqual(
    points.map((point) => ({ point, witnesses: 3, problems: [] })),
  );
}, 120_000);
