import { expect, test } from "bun:test";
import { deliveryMutants } from "./delivery.ts";
import type { DeliveryMutant } from "./delivery-mutant.ts";
import { formatDeliveryVerdict } from "./format.ts";
import { judgeDeliveryMutants } from "./judge.ts";

const named = (name: string): DeliveryMutant => {
  const found = deliveryMutants.find((mutant) => mutant.name === name);
  if (found === undefined) throw new Error(`There is no mutant "${name}".`);
  return found;
};
const withoutGuard = named("marks rows whatever their status");

test("three delivery mutants are caught, and a mutant that does not change the behaviour survives", async () => {
  const harmless: DeliveryMutant = {
    ...withoutGuard,
    name: "writes the same condition in another order",
    changes: [
      {
        from: "status IN ('PENDING', 'FAILED')`,\n        [ids]",
        to: "status IN ('FAILED', 'PENDING')`,\n        [ids]",
      },
    ],
  };
  const caught = [
    withoutGuard,
    named("archives rows that are not published"),
    named("writes the inbox rows in a transaction of their own"),
  ];
  const verdicts = await judgeDeliveryMutants([...caught, harmless], (it) => console.log(formatDeliveryVerdict(it)));
  expect(verdicts.map(({ isCaught }) => isCaught)).toEqual([true, true, true, false]);
}, 120_000);

test("a delivery mutant whose quote does not occur in the code is an error", async () => {
  const outdated = { ...withoutGuard, changes: [{ from: "no such text", to: "" }] };
  await expect(judgeDeliveryMutants([outdated])).rejects.toThrow("0 times instead of once");
});

test("a delivery mutant whose test does not exist is an error", async () => {
  const untested = { ...withoutGuard, caughtBy: { ...withoutGuard.caughtBy, name: "no such test" } };
  await expect(judgeDeliveryMutants([untested])).rejects.toThrow("no such test");
});
