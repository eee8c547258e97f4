import { describe, expect, test } from "bun:test";
import { formatExploration } from "../format.ts";
import { placedOrder, stockOf } from "../world/samples.ts";
import { type Domains, realDomains } from "../world/services.ts";
import { type Configuration, smallConfigurations } from "./configurations.ts";
import { type Exploration, explore } from "./explorer.ts";

const timeoutMs = 300_000;

function exploreReal({ name, ...options }: Configuration): Exploration {
  const startedMs = performance.now();
  const exploration = explore({ ...options, domains: realDomains });
  console.log(formatExploration(name, exploration, performance.now() - startedMs));
  return exploration;
}

/** Every way in which any of the orders ended. */
function endingsOf({ ends }: Exploration): ReadonlySet<string> {
  return new Set([...ends.keys()].flatMap((ending) => ending.split(" + ")));
}

describe("every state keeps the promises, and an end can be reached from it:", () => {
  // The large configurations take too long for a unit test: `npm run explore` explores them.
  for (const configuration of smallConfigurations) {
    test(
      configuration.name,
      () => {
        const exploration = exploreReal(configuration);
        expect(exploration.counterexample).toBeUndefined();
        const isInStock = configuration.stock.get("sku-rare")?.available === 1;
        const isContended = configuration.orders.length > 1;
        const isTimedOut = configuration.commands.some((commands) => commands.includes("TimeOutOrder"));
        // An exploration that stops too early would find no counterexample either.
        expect(endingsOf(exploration)).toEqual(
          new Set([
            "CANCELLED",
            ...(isTimedOut ? ["TIMED_OUT"] : []),
            ...(isInStock ? ["COMPLETED", "PAYMENT_DECLINED"] : []),
            ...(isContended || !isInStock ? ["OUT_OF_STOCK"] : []),
          ]),
        );
      },
      timeoutMs,
    );
  }
});

const simplest: Omit<Configuration, "name"> = {
  orders: [placedOrder(1, [{ sku: "sku-rare", quantity: 1 }])],
  stock: stockOf({ "sku-rare": 1 }),
  inboxes: "kept",
  commands: [[]],
  callsMax: 1,
  areCallsUnreliable: false,
};
const { order, inventory, payment } = realDomains;

test("a counterexample is the shortest sequence of steps to the problem", () => {
  const domains: Domains = {
    ...realDomains,
    order: {
      ...order,
      decide: (state, message) =>
        message.$typeName === "shop.inventory.v1.StockReserved" && state.status === "PENDING"
          ? [{ kind: "StockWasReserved" }, { kind: "Completed" }]
          : order.decide(state, message),
    },
  };
  expect(explore({ ...simplest, domains }).counterexample).toEqual({
    message: "PENDING became COMPLETED",
    steps: [
      "the relay sends order's OrderPlaced",
      "inventory handles OrderPlaced",
      "the relay sends inventory's StockReserved",
      "order handles StockReserved",
    ],
  });
});

test("an exception in the domain code is a counterexample", () => {
  const decide = () => {
    throw new Error("out of order");
  };
  const domains: Domains = { ...realDomains, inventory: { ...inventory, decide } };
  expect(explore({ ...simplest, domains }).counterexample).toEqual({
    message: "exception: out of order",
    steps: ["the relay sends order's OrderPlaced", "inventory handles OrderPlaced"],
  });
});

test("a decision that depends on more than its arguments is a counterexample", () => {
  let decisions = 0;
  const decide: typeof inventory.decide = (state, message) =>
    decisions++ % 2 === 0 ? inventory.decide(state, message) : [];
  const domains: Domains = { ...realDomains, inventory: { ...inventory, decide } };
  expect(explore({ ...simplest, domains }).counterexample?.message).toBe(
    "the domain code decided differently when it was asked again",
  );
});

test("a state that no end can be reached from is a counterexample, even if steps are left", () => {
  const decide: typeof payment.decide = (state, message) =>
    message.$typeName === "GatewayAuthorized" ? [] : payment.decide(state, message);
  const domains: Domains = { ...realDomains, payment: { ...payment, decide } };
  const { counterexample } = explore({ ...simplest, domains });
  expect(counterexample?.message).toBe("I4: no end can be reached from here");
  expect(counterexample?.steps.at(-1)).toBe("the authorise reaches the gateway, the bank accepts");
});

test("stock that two orders both take is a counterexample", () => {
  const decide: typeof inventory.decide = (state, message) =>
    message.$typeName === "shop.order.v1.OrderPlaced" && state.reservation.status === "NONE"
      ? [{ kind: "Reserved", lines: message.lines }]
      : inventory.decide(state, message);
  const domains: Domains = { ...realDomains, inventory: { ...inventory, decide } };
  const orders = [1, 2].map((number) => placedOrder(number, [{ sku: "sku-rare", quantity: 1 }]));
  const { counterexample } = explore({ ...simplest, orders, commands: [[], []], domains });
  expect(counterexample?.message).toBe("I2: sku-rare has available -1, held 2, sold 0: a count is negative");
  expect(counterexample?.steps).toHaveLength(4);
});
