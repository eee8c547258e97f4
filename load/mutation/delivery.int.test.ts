import { expect, test } from "bun:test";
import { type DeliveryMutant, deliveryMutants } from "./delivery.ts";
import { formatDeliveryVerdict } from "./format.ts";
import { judgeDeliveryMutants } from "./judge.ts";

const named = (name: string): DeliveryMutant => {
  const found = deliveryMutants.find((mutant) => mutant.name === name);
  if (found === undefined) throw new Error(`There is no mutant "${name}".`);
  return found;
};
const guard = named("marks whatever status a row has by now");

test("three of the mutants are caught, and a change that changes nothing is not", async () => {
  const harmless: DeliveryMutant = {
    ...guard,
    name: "the same in other words",
    changes: [
      {
        from: "status IN ('PENDING', 'FAILED')`,\n        [ids]",
        to: "status IN ('FAILED', 'PENDING')`,\n        [ids]",
      },
    ],
  };
  const caught = [guard, named("archives what is not published"), named("the inbox in a transaction of its own")];
  const verdicts = await judgeDeliveryMutants([...caught, harmless], (it) => console.log(formatDeliveryVerdict(it)));
  expect(verdicts.map(({ isCaught }) => isCaught)).toEqual([true, true, true, false]);
}, 120_000);

test("a mutant whose text is not there is an error", async () => {
  const lost = { ...guard, changes: [{ from: "no such text", to: "" }] };
  await expect(judgeDeliveryMutants([lost])).rejects.toThrow("0 times instead of once");
});

test("a mutant whose test is not there is an error", async () => {
  const untested = { ...guard, caughtBy: { ...guard.caughtBy, name: "no such test" } };
  await expect(judgeDeliveryMutants([untested])).rejects.toThrow("no such test");
});
