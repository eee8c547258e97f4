import { expect, test } from "bun:test";
import { type Domains, realDomains } from "../world/services.ts";
import { walk } from "./walk.ts";

const seeds = Array.from({ length: 200 }, (_, at) => at + 1);
const walks = seeds.map((seed) => walk(seed));
const { inventory, payment } = realDomains;

test("200 random walks break no promise", () => {
  const broken = walks.flatMap((it) => (it.broken === undefined ? [] : [`seed ${it.seed}: ${it.broken}`]));
  expect(broken).toEqual([]);
});

test("200 random walks reach every outcome and meet every fault", () => {
  expect(new Set(walks.flatMap(({ outcomes }) => [...outcomes.keys()]))).toEqual(
    new Set(["COMPLETED", "OUT_OF_STOCK", "PAYMENT_DECLINED", "TIMED_OUT", "CANCELLED"]),
  );
  expect(new Set(walks.flatMap(({ faults }) => [...faults.keys()]))).toEqual(
    new Set([
      "relay frozen with a batch",
      "relay died between send and mark",
      "consumer died before its commit",
      "consumer died between commit and offset",
      "batch handled by a consumer that had lost the partition",
      "rebalance during a batch",
      "inbox emptied, topic read again from its beginning",
      "worker died with calls in flight",
      "call timed out but stayed in flight",
      "call lost",
      "answer lost",
      "void refused",
    ]),
  );
});

test("the same seed gives the same walk, traced or not", () => {
  const { trace, ...result } = walk(7, { trace: true });
  expect(trace.length).toBeGreaterThan(0);
  expect(walk(7)).toEqual({ ...result, trace: [] });
  expect(walk(8)).not.toEqual({ ...result, seed: 8, trace: [] });
});

function firstBroken(domains: Domains): string | undefined {
  const results = seeds.slice(0, 20).map((seed) => walk(seed, { domains }));
  return results.find(({ broken }) => broken !== undefined)?.broken;
}

test("walks find an idempotency key that is new for each attempt", () => {
  let attempts = 0;
  const nextCall: typeof payment.nextCall = (state) => {
    const call = payment.nextCall(state);
    return call && { ...call, idempotencyKey: `${call.idempotencyKey}-${attempts++}` };
  };
  expect(firstBroken({ ...realDomains, payment: { ...payment, nextCall } })).toStartWith("I3: ");
});

test("walks find stock that is released twice", () => {
  const decide: typeof inventory.decide = (state, message) => {
    const { reservation } = state;
    return message.$typeName === "shop.order.v1.OrderCancelRequested" && "lines" in reservation
      ? [{ kind: "Cancelled", lines: reservation.lines }]
      : inventory.decide(state, message);
  };
  expect(firstBroken({ ...realDomains, inventory: { ...inventory, decide } })).toBeDefined();
});
