import { describe, expect, test } from "bun:test";
import type { ServiceName } from "../../../proto/event-table.ts";
import type { InboxOutcome, OutboxStatus } from "../../../relay/tables.ts";
import type { Awaiting, OrderState, OrderStatus } from "../../order/domain.ts";
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

/** An event with where it has got to: its outbox status, and what became of it at each service that has received it. */
interface Given {
  readonly name: Name;
  readonly status?: OutboxStatus;
  readonly seen?: Partial<Record<ServiceName, InboxOutcome>>;
}

const handled = { order: "HANDLED", inventory: "HANDLED", payment: "HANDLED" } as const;

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
  const inboxes = { order: outcomes("order"), inventory: outcomes("inventory"), payment: outcomes("payment") };
  const short = (type: string) => type.split(".").at(-1);
  return owedTo(state, events, inboxes).map(
    ({ by, step, waitsFor, event }) => `${by} owes ${waitsFor.map(short).join("|")}: ${step} ${short(event.type)}`,
  );
}

describe("PENDING", () => {
  const reserved = "StockReserved|StockReservationFailed";

  test("not on the topic yet: the relay", () => {
    for (const status of ["PENDING", "FAILED", "DEAD"] as const) {
      expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", status }])).toEqual([
        `relay owes ${reserved}: DELIVER OrderPlaced`,
      ]);
    }
  });

  test("on the topic: inventory, and not payment, which owes no answer to it", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced" }])).toEqual([
      `inventory owes ${reserved}: HANDLE OrderPlaced`,
    ]);
  });

  test("sent, and not yet marked as published: inventory", () => {
    const placed = { name: "OrderPlaced", status: "PENDING", seen: { order: "IGNORED" } } as const;
    expect(owed(orderIn("PENDING"), [placed])).toEqual([`inventory owes ${reserved}: HANDLE OrderPlaced`]);
  });

  test("parked at inventory: inventory", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", seen: { inventory: "PARKED" } }])).toEqual([
      `inventory owes ${reserved}: HANDLE OrderPlaced`,
    ]);
  });

  test("answered, and the answer not on the topic: the relay", () => {
    for (const name of ["StockReserved", "StockReservationFailed"] as const) {
      expect(
        owed(orderIn("PENDING"), [
          { name: "OrderPlaced", seen: handled },
          { name, status: "PENDING" },
        ]),
      ).toEqual([`relay owes ${name}: DELIVER ${name}`]);
    }
  });

  test("answered, and the answer on the topic: order", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", seen: handled }, { name: "StockReserved" }])).toEqual([
      "order owes StockReserved: HANDLE StockReserved",
    ]);
  });

  test("handled and never answered: still inventory", () => {
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", seen: handled }])).toEqual([
      `inventory owes ${reserved}: ANSWER OrderPlaced`,
    ]);
  });

  test("no event at all, or a discarded one: nobody", () => {
    expect(owed(orderIn("PENDING"), [])).toEqual([]);
    expect(owed(orderIn("PENDING"), [{ name: "OrderPlaced", status: "DISCARDED" }])).toEqual([]);
  });
});

describe("STOCK_RESERVED", () => {
  const before: readonly Given[] = [{ name: "OrderPlaced", seen: handled }];
  const reservedSeen = { name: "StockReserved", seen: { order: "HANDLED" } } as const;
  const decision = "PaymentAuthorized|PaymentFailed";

  test("payment has not received it, has parked it, or asks the gateway", () => {
    const state = orderIn("STOCK_RESERVED");
    expect(owed(state, [...before, reservedSeen])).toEqual([`payment owes ${decision}: HANDLE StockReserved`]);
    expect(owed(state, [...before, { ...reservedSeen, seen: { order: "HANDLED", payment: "PARKED" } }])).toEqual([
      `payment owes ${decision}: HANDLE StockReserved`,
    ]);
    expect(owed(state, [...before, { ...reservedSeen, seen: handled }])).toEqual([
      `payment owes ${decision}: ANSWER StockReserved`,
    ]);
  });

  test("payment has answered", () => {
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

  test("cancelled, not on the topic yet: the relay owes both answers", () => {
    expect(owed(orderIn("COMPENSATING"), [...before, { name: "OrderCancelRequested", status: "PENDING" }])).toEqual([
      "relay owes StockReleased|PaymentVoided: DELIVER OrderCancelRequested",
    ]);
  });

  test("both answers outstanding; the authorisation that was asked for before is none of them", () => {
    expect(owed(orderIn("COMPENSATING"), [...before, cancelled])).toEqual([
      "inventory owes StockReleased: HANDLE OrderCancelRequested",
      "payment owes PaymentVoided: HANDLE OrderCancelRequested",
    ]);
  });

  test("one answer outstanding", () => {
    const released: Given = { name: "StockReleased", seen: { order: "HANDLED" } };
    const seen = { ...cancelled, seen: { order: "IGNORED", inventory: "HANDLED", payment: "HANDLED" } } as const;
    expect(owed(orderIn("COMPENSATING", { stock: false, payment: true }), [...before, seen, released])).toEqual([
      "payment owes PaymentVoided: ANSWER OrderCancelRequested",
    ]);
    const voided: Given = { name: "PaymentVoided", seen: { order: "HANDLED" } };
    const late = { ...cancelled, seen: { order: "IGNORED", payment: "HANDLED" } } as const;
    expect(owed(orderIn("COMPENSATING", { stock: true, payment: false }), [...before, late, voided])).toEqual([
      "inventory owes StockReleased: HANDLE OrderCancelRequested",
    ]);
  });

  test("both answers given: one on its way, one for order to handle", () => {
    const seen = { ...cancelled, seen: { order: "IGNORED", inventory: "HANDLED", payment: "HANDLED" } } as const;
    expect(
      owed(orderIn("COMPENSATING"), [
        ...before,
        seen,
        { name: "StockReleased" },
        { name: "PaymentVoided", status: "PENDING" },
      ]),
    ).toEqual(["order owes StockReleased: HANDLE StockReleased", "relay owes PaymentVoided: DELIVER PaymentVoided"]);
  });

  test("cancelled before inventory had heard of the order: only the cancel's answer counts", () => {
    expect(owed(orderIn("COMPENSATING"), [{ name: "OrderPlaced" }, cancelled])).toEqual([
      "inventory owes StockReleased: HANDLE OrderCancelRequested",
      "payment owes PaymentVoided: HANDLE OrderCancelRequested",
    ]);
  });

  test("an answer that Order has let pass does not count", () => {
    const seen = { ...cancelled, seen: { order: "IGNORED", inventory: "HANDLED", payment: "HANDLED" } } as const;
    const passed: Given = { name: "StockReleased", seen: { order: "IGNORED" } };
    expect(owed(orderIn("COMPENSATING", { stock: true, payment: false }), [...before, passed, seen])).toEqual([
      "inventory owes StockReleased: ANSWER OrderCancelRequested",
    ]);
  });

  test("declined: inventory owes the stock, payment nothing", () => {
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
