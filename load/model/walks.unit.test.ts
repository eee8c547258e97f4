import { beforeAll, describe, expect, test } from "bun:test";
import { realDomains } from "./configurations.ts";
import { type Simulation, simulate } from "./walks.ts";
import type { Domains } from "./world.ts";

const seeds = Array.from({ length: 200 }, (_, at) => at + 1);

describe("200 random walks", () => {
  let walks: readonly Simulation[] = [];
  beforeAll(() => {
    walks = seeds.map((seed) => simulate(seed));
  });

  test("break nothing", () => {
    const broken = walks.flatMap(({ seed, broken }) => (broken === undefined ? [] : [`seed ${seed}: ${broken}`]));
    expect(broken).toEqual([]);
  });

  test("end in every way, and meet every fault", () => {
    expect(new Set(walks.flatMap(({ endings }) => [...endings.keys()]))).toEqual(
      new Set(["COMPLETED", "OUT_OF_STOCK", "PAYMENT_DECLINED", "TIMED_OUT", "CANCELLED"]),
    );
    expect(new Set(walks.flatMap(({ faults }) => [...faults.keys()]))).toEqual(
      new Set([
        "relay frozen with a batch",
        "relay died between send and mark",
        "consumer died before its commit",
        "consumer died between commit and offset",
        "batch handled by a consumer that had lost the partition",
        "rebalance in mid-batch",
        "inbox emptied, topic read again from its beginning",
        "worker died with calls under way",
        "call timed out, still under way",
        "call lost",
        "answer lost",
        "void refused",
      ]),
    );
  });
});

test("a walk is the same for the same seed, written down or not", () => {
  const { trace, ...walk } = simulate(7, { trace: true });
  expect(trace.length).toBeGreaterThan(0);
  expect(simulate(7)).toEqual({ ...walk, trace: [] });
  expect(simulate(8)).not.toEqual({ ...walk, seed: 8, trace: [] });
});

describe("walks find", () => {
  const { inventory, payment } = realDomains;
  const found = (domains: Domains) => {
    const walks = seeds.slice(0, 20).map((seed) => simulate(seed, { domains }));
    return walks.find(({ broken }) => broken !== undefined)?.broken;
  };

  test("a key that is new for each attempt", () => {
    let attempts = 0;
    const nextCall: typeof payment.nextCall = (state) => {
      const call = payment.nextCall(state);
      return call && { ...call, idempotencyKey: `${call.idempotencyKey}-${attempts++}` };
    };
    expect(found({ ...realDomains, payment: { ...payment, nextCall } })).toStartWith("I3: ");
  });

  test("a release that happens twice", () => {
    const decide: typeof inventory.decide = (state, message) => {
      const { reservation } = state;
      return message.$typeName === "shop.order.v1.OrderCancelRequested" && "lines" in reservation
        ? [{ kind: "Cancelled", lines: reservation.lines }]
        : inventory.decide(state, message);
    };
    expect(found({ ...realDomains, inventory: { ...inventory, decide } })).toBeDefined();
  });
});
