import { expect, test } from "bun:test";
import {
  eventTable,
  eventTypesHandledBy,
  type Reaction,
  type ServiceName,
  urgentTypes,
  urgentTypesFor,
} from "./event-table.ts";

const shortNames = (types: ReadonlySet<string>) => [...types].map((type) => type.split(".").at(-1)).sort();

test("only what nobody waits for may wait: it answers nothing, and changes no order's status", () => {
  const reactions: readonly Reaction[] = eventTable.flatMap((row) => [...row.reactions]);
  const waiting = reactions.filter(({ mayWait }) => mayWait === true);
  expect(waiting.length).toBeGreaterThan(0);
  expect(waiting.filter(({ answers, service }) => answers.length > 0 || service === "order")).toEqual([]);
});

test("every type that is handled is urgent, but for those that may wait", () => {
  const mayWait: Record<ServiceName, readonly string[]> = {
    order: [],
    inventory: ["OrderCompleted"],
    payment: ["OrderPlaced"],
  };
  for (const service of ["order", "inventory", "payment"] as const) {
    const handled = shortNames(eventTypesHandledBy(service));
    expect(shortNames(urgentTypesFor(service))).toEqual(
      handled.filter((name) => !mayWait[service].includes(name ?? "")),
    );
  }
});

test("an event hurries to the topic if any of its receivers waits for it", () => {
  expect(urgentTypes.has("shop.order.v1.OrderPlaced")).toBe(true);
  expect(shortNames(urgentTypes)).not.toContain("OrderCompleted");
  expect(shortNames(urgentTypes)).not.toContain("OrderFailed");
  expect(urgentTypes.size).toBe(eventTable.length - 2);
});
