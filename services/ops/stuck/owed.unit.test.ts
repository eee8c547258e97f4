import { describe, expect, test } from "bun:test";
import type { ServiceName } from "../../../proto/event-table.ts";
import type { InboxOutcome, OutboxStatus } from "../../../relay/tables.ts";
import type { Awaiting, OrderState, OrderStatus } from "../../order/domain.ts";
import { byService } from "../../stack/services.ts";
import { owedTo } from "./owed.ts";

const types = {
  OrderPlaced: "shop.order.v1.OrderPlaced",
  OrderCompleted: "shop.order.v1.OrderCompleted",
  OrderCancelRequested: "shop.order.v1.OrderCancelRequested",
  StockReserved: "shop.inventory.v1.StockReserved",
  StockReservationFailed: "shop.inventory.v1.StockReservationFailed",
  StockReleased: "shop.inventory.v1.StockReleased",
  PaymentAuthorized: "shop.payment.v1.PaymentAuthorized",
  PaymentFailed: "shop.payment.v1.PaymentFailed",
  PaymentVoided: "shop.payment.v1.PaymentVoided",
} as const;
type Name = keyof typeof types;

/** An event with its outbox status and its outcome at each service that has received it. */
interface Given {
  readonly name: Name;
  readonly status?: OutboxStatus;
  readonly seen?: Partial<Record<ServiceName, InboxOutcome>>;
}

const handled = byService(() => "HANDLED" as const);

function orderIn(status: OrderStatus, awaiting: Awaiting = { stock: true, payment: true }): OrderState {
  const common = { orderId: "order-1", version: 1 };
  switch (status) {
    case "COMPENSATING":
      return { ...common, status, failureReason: "TIMED_OUT", awaiting };
    case "FAILED":
      return { ...common, status, failureReason: "TIMED_OUT" };
    default:
      return { ...common, status };
  }
}

/** `payment owes PaymentVoided: ANSWER OrderCancelRequested`. */
function owed(state: OrderState, given: readonly Given[]): readonly string[] {
  const events = given.map(({ name, status = "PUBLISHED" }, index) => ({
    eventId: `${index}`,
    type: types[name],
    status,
  }));
  const outcomes = (service: ServiceName) =>
    new Map(
      given.flatMap(({ seen }, index) => {
        const outcome = seen?.[service];
        return outcome === undefined ? [] : [[`${index}`, outcome] as const];
      }),
    );
  const short = (type: string) => type.split(".").at(-1);
  return owedTo(state, events, byService(outcomes)).map(
    ({ by, step, waitsFor, event }) => `${by} owes ${waitsFor.map(short).join("|")}: ${step} ${short(event.type)}`,
  );
}

describe("PENDING", () => {
  const reserved = "StockReserved|StockReservationFailed";

  test("PENDING, OrderPlaced is not on the topic: the relay owes its delivery", () => {
    for (const status of ["PENDING", "FAILED", "DEAD"] as const) {
      expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", status }])).toEqual([
        `relay owes ${reserved}: DELIVER OrderPlaced`,
      ]);
    }
  });

  test("PENDING, OrderPlaced is on the topic: inventory owes a reaction, payment owes no answer", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced" }])).toEqual([
      `inventory owes ${reserved}: HANDLE OrderPlaced`,
    ]);
  });

  test("PENDING, OrderPlaced is on the topic but not marked yet: inventory owes a reaction", () => {
    const placed = { name: "OrderPlaced", status: "PENDING", seen: { order: "IGNORED" } } as const;
    expect(owed(orderIn("PENDING"), [placed])).toEqual([`inventory owes ${reserved}: HANDLE OrderPlaced`]);
  });

  test("PENDING, OrderPlaced is parked at inventory: inventory owes a reaction", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", seen: { inventory: "PARKED" } }])).toEqual([
      `inventory owes ${reserved}: HANDLE OrderPlaced`,
    ]);
  });

  test("PENDING, inventory's answer is not on the topic: the relay owes its delivery", () => {
    for (const name of ["StockReserved", "StockReservationFailed"] as const) {
      expect(
        owed(orderIn("PENDING"), [
          { name: "OrderPlaced", seen: handled },
          { name, status: "PENDING" },
        ]),
      ).toEqual([`relay owes ${name}: DELIVER ${name}`]);
    }
  });

  test("PENDING, inventory's answer is on the topic: order owes a reaction", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", seen: handled }, { name: "StockReserved" }])).toEqual([
      "order owes StockReserved: HANDLE StockReserved",
    ]);
  });

  test("PENDING, inventory handled OrderPlaced without an answer: inventory owes the answer", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", seen: handled }])).toEqual([
      `inventory owes ${reserved}: ANSWER OrderPlaced`,
    ]);
  });

  test("PENDING without events, or with a discarded one: nothing can move the order", () => {
    expect(owed(orderIn("PENDING"), [])).toEqual([]);
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", status: "DISCARDED" }])).toEqual([]);
  });
});

describe("STOCK_RESERVED", () => {
  const before: readonly Given[] = [{ name: "OrderPlaced", seen: handled }];
  const reservedSeen = { name: "StockReserved", seen: { order: "HANDLED" } } as const;
  const decision = "PaymentAuthorized|PaymentFailed";

  test("STOCK_RESERVED, payment has not received it, has parked it, or is asking the gateway: payment owes the decision", () => {
    const state = orderIn("STOCK_RESERVED");
    expect(owed(state, [...before, reservedSeen])).toEqual([`payment owes ${decision}: HANDLE StockReserved`]);
    expect(owed(state, [...before, { ...reservedSeen, seen: { order: "HANDLED", payment: "PARKED" } }])).toEqual([
      `payment owes ${decision}: HANDLE StockReserved`,
    ]);
    expect(owed(state, [...before, { ...reservedSeen, seen: handled }])).toEqual([
      `payment owes ${decision}: ANSWER StockReserved`,
    ]);
  });

  test("STOCK_RESERVED, payment has answered: the relay owes delivery, then order owes a reaction", () => {
    for (const name of ["PaymentAuthorized", "PaymentFailed"] as const) {
      const events = [...before, { name: "StockReserved", seen: handled } as const];
      expect(owed(orderIn("STOCK_RESERVED"), [...events, { name, status: "FAILED" }])).toEqual([
        `relay owes ${name}: DELIVER ${name}`,
      ]);
      expect(owed(orderIn("STOCK_RESERVED"), [...events, { name }])).toEqual([`order owes ${name}: HANDLE ${name}`]);
    }
  });
});

describe("COMPENSATING", () => {
  const before: readonly Given[] = [
    { name: "OrderPlaced", seen: handled },
    { name: "StockReserved", seen: handled },
  ];
  const cancelled: Given = { name: "OrderCancelRequested", seen: { order: "IGNORED" } };

  test("COMPENSATING, OrderCancelRequested is not on the topic: the relay owes its delivery", () => {
    expect(owed(orderIn("COMPENSATING"), [...before, { name: "OrderCancelRequested", status: "PENDING" }])).toEqual([
      "relay owes StockReleased|PaymentVoided: DELIVER OrderCancelRequested",
    ]);
  });

  test("COMPENSATING, no answer yet: inventory and payment owe one each, and no authorisation is awaited", () => {
    expect(owed(orderIn("COMPENSATING"), [...before, cancelled])).toEqual([
      "inventory owes StockReleased: HANDLE OrderCancelRequested",
      "payment owes PaymentVoided: HANDLE OrderCancelRequested",
    ]);
  });

  test("COMPENSATING, one answer is in: the other service owes its answer", () => {
    const released: Given = { name: "StockReleased", seen: { order: "HANDLED" } };
    const seen = { ...cancelled, seen: { ...handled, order: "IGNORED" } } as const;
    expect(owed(orderIn("COMPENSATING", { stock: false, payment: true }), [...before, seen, released])).toEqual([
      "payment owes PaymentVoided: ANSWER OrderCancelRequested",
    ]);
    const voided: Given = { name: "PaymentVoided", seen: { order: "HANDLED" } };
    const late = { ...cancelled, seen: { order: "IGNORED", payment: "HANDLED" } } as const;
    expect(owed(orderIn("COMPENSATING", { stock: true, payment: false }), [...before, late, voided])).toEqual([
      "inventory owes StockReleased: HANDLE OrderCancelRequested",
    ]);
  });

  test("COMPENSATING, both answers are published: the relay owes delivery of one, order a reaction to the other", () => {
    const seen = { ...cancelled, seen: { ...handled, order: "IGNORED" } } as const;
    expect(
      owed(orderIn("COMPENSATING"), [
        ...before,
        seen,
        { name: "StockReleased" },
        { name: "PaymentVoided", status: "PENDING" },
      ]),
    ).toEqual(["order owes StockReleased: HANDLE StockReleased", "relay owes PaymentVoided: DELIVER PaymentVoided"]);
  });

  test("COMPENSATING before inventory has handled OrderPlaced: only the answer to the cancel is awaited", () => {
    expect(owed(orderIn("COMPENSATING"), [{ name: "OrderPlaced" }, cancelled])).toEqual([
      "inventory owes StockReleased: HANDLE OrderCancelRequested",
      "payment owes PaymentVoided: HANDLE OrderCancelRequested",
    ]);
  });

  test("COMPENSATING, order ignored an answer: the service still owes one", () => {
    const seen = { ...cancelled, seen: { ...handled, order: "IGNORED" } } as const;
    const passed: Given = { name: "StockReleased", seen: { order: "IGNORED" } };
    expect(owed(orderIn("COMPENSATING", { stock: true, payment: false }), [...before, passed, seen])).toEqual([
      "inventory owes StockReleased: ANSWER OrderCancelRequested",
    ]);
  });

  test("COMPENSATING after a declined payment: inventory owes the release, payment owes nothing", () => {
    const declined: Given = { name: "PaymentFailed", seen: { order: "HANDLED" } };
    expect(owed(orderIn("COMPENSATING", { stock: true, payment: false }), [...before, declined])).toEqual([
      "inventory owes StockReleased: HANDLE PaymentFailed",
    ]);
  });
});

test("a final order waits for nothing", () => {
  const placed: Given = { name: "OrderPlaced" };
  expect(owed(orderIn("COMPLETED"), [placed, { name: "OrderCompleted", status: "PENDING" }])).toEqual([]);
  expect(owed(orderIn("FAILED"), [placed])).toEqual([]);
});
