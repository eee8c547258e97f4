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

test("a deferrable reaction publishes no answer and does not change an order's status", () => {
  const reactions: readonly Reaction[] = eventTable.flatMap((row) => [...row.reactions]);
  const deferrable = reactions.filter((it) => it.deferrable === true);
  expect(deferrable.length).toBeGreaterThan(0);
  expect(deferrable.filter(({ answers, service }) => answers.length > 0 || service === "order")).toEqual([]);
});

test("every event type that a service handles is urgent unless the reaction is deferrable", () => {
  const deferrable: Partial<Record<ServiceName, readonly string[]>> = {
    inventory: ["OrderCompleted"],
    payment: ["OrderPlaced"],
  };
  for (const service of new Set(eventTable.map(({ publishedBy }) => publishedBy))) {
    const handled = shortNames(eventTypesHandledBy(service));
    expect(shortNames(urgentTypesFor(service))).toEqual(
      handled.filter((name) => deferrable[service]?.includes(name ?? "") !== true),
    );
  }
});

test("an event wakes the relay if it is urgent for at least one service", () => {
  expect(urgentTypes.has("shop.order.v1.OrderPlaced")).toBe(true);
  expect(shortNames(urgentTypes)).not.toContain("OrderCompleted");
  expect(shortNames(urgentTypes)).not.toContain("OrderFailed");
  expect(urgentTypes.size).toBe(eventTable.length - 2);
});
