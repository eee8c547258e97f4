import { describe, expect, test } from "bun:test";
import { type Configuration, placedOrder, realDomains, smallConfigurations, stockOf } from "./configurations.ts";
import { type Exploration, explore } from "./explorer.ts";
import { formatExploration } from "./format.ts";
import type { Domains } from "./world.ts";

const largeTimeoutMs = 300_000;

function exploreReal({ name, ...options }: Configuration): Exploration {
  const startedMs = performance.now();
  const exploration = explore({ ...options, domains: realDomains });
  console.log(formatExploration(name, exploration, performance.now() - startedMs));
  return exploration;
}

/** Every way in which one order of the configuration ended, in whatever company. */
function endingsOf({ ends }: Exploration): ReadonlySet<string> {
  return new Set([...ends.keys()].flatMap((ending) => ending.split(" + ")));
}

describe("every state is legal, and an end can be reached from it:", () => {
  // The large ones are for the command: `npm run explore`.
  for (const configuration of smallConfigurations) {
    test(
      configuration.name,
      () => {
        const exploration = exploreReal(configuration);
        expect(exploration.counterexample).toBeUndefined();
        const isInStock = configuration.stock.get("sku-rare")?.available === 1;
        const isContended = configuration.orders.length > 1;
        const isTimedOut = configuration.commands.some((commands) => commands.includes("TimeOutOrder"));
        // An exploration that never gets anywhere would find nothing either.
        expect(endingsOf(exploration)).toEqual(
          new Set([
            "CANCELLED",
            ...(isTimedOut ? ["TIMED_OUT"] : []),
            ...(isInStock ? ["COMPLETED", "PAYMENT_DECLINED"] : []),
            ...(isContended || !isInStock ? ["OUT_OF_STOCK"] : []),
          ]),
        );
      },
      largeTimeoutMs,
    );
  }
});

describe("what is broken", () => {
  const simplest: Omit<Configuration, "name"> = {
    orders: [placedOrder(1, [{ sku: "sku-rare", quantity: 1 }])],
    stock: stockOf({ "sku-rare": 1 }),
    inboxes: "kept",
    commands: [[]],
    callsMax: 1,
    areCallsLost: false,
  };
  const { order, inventory, payment } = realDomains;

  test("is shown by the shortest way there", () => {
    const forgetful: Domains = {
      ...realDomains,
      order: {
        ...order,
        decide: (state, message) =>
          message.$typeName === "shop.inventory.v1.StockReserved" && state.status === "PENDING"
            ? [{ kind: "StockWasReserved" }, { kind: "Completed" }]
            : order.decide(state, message),
      },
    };
    expect(explore({ ...simplest, domains: forgetful }).counterexample).toEqual({
      message: "PENDING became COMPLETED",
      steps: [
        "the relay sends order's OrderPlaced",
        "inventory handles OrderPlaced",
        "the relay sends inventory's StockReserved",
        "order handles StockReserved",
      ],
    });
  });

  test("may be an exception", () => {
    const throwing: Domains = {
      ...realDomains,
      inventory: {
        ...inventory,
        decide: () => {
          throw new Error("no such thing");
        },
      },
    };
    expect(explore({ ...simplest, domains: throwing }).counterexample).toEqual({
      message: "an exception: no such thing",
      steps: ["the relay sends order's OrderPlaced", "inventory handles OrderPlaced"],
    });
  });

  test("may be a decision that depends on more than its arguments", () => {
    let asked = 0;
    const moody: Domains = {
      ...realDomains,
      inventory: {
        ...inventory,
        decide: (state, message) => (asked++ % 2 === 0 ? inventory.decide(state, message) : []),
      },
    };
    expect(explore({ ...simplest, domains: moody }).counterexample?.message).toBe(
      "a decision is not the same when asked again",
    );
  });

  test("may be a state from which there is no end, though something can always be done", () => {
    const unheard: Domains = {
      ...realDomains,
      payment: {
        ...payment,
        decide: (state, message) => (message.$typeName === "GatewayAuthorized" ? [] : payment.decide(state, message)),
      },
    };
    const { counterexample } = explore({ ...simplest, domains: unheard });
    expect(counterexample?.message).toBe("I4: from here no end can be reached");
    expect(counterexample?.steps.at(-1)).toBe("the authorise reaches the gateway, the bank accepts");
  });

  test("may be the stock of two orders", () => {
    const generous: Domains = {
      ...realDomains,
      inventory: {
        ...inventory,
        decide(state, message) {
          if (message.$typeName !== "shop.order.v1.OrderPlaced" || state.reservation.status !== "NONE") {
            return inventory.decide(state, message);
          }
          return [{ kind: "Reserved", lines: message.lines }];
        },
      },
    };
    const orders = [1, 2].map((number) => placedOrder(number, [{ sku: "sku-rare", quantity: 1 }]));
    const { counterexample } = explore({ ...simplest, orders, commands: [[], []], domains: generous });
    expect(counterexample?.message).toBe("I2: sku-rare has available -1, held 2, sold 0: a negative number");
    expect(counterexample?.steps).toHaveLength(4);
  });
});
