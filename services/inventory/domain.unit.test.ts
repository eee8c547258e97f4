import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderPlacedSchema,
} from "../../proto/gen/shop/order/v1/events_pb.ts";
import { PaymentFailedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import {
  decide,
  evolve,
  type InventoryMessage,
  type InventoryState,
  noReservation,
  type Reservation,
  type ReservationStatus,
  skusTouchedBy,
  toEvent,
} from "./domain.ts";

const orderId = "018f0000-0000-7000-8000-000000000001";
const lines = [
  { sku: "sku-a", quantity: 2 },
  { sku: "sku-b", quantity: 1 },
];
const placed = create(OrderPlacedSchema, { orderId, lines });
const paymentFailed = create(PaymentFailedSchema, { orderId });
const completed = create(OrderCompletedSchema, { orderId });
const cancelRequested = create(OrderCancelRequestedSchema, { orderId });

const reservedEvent = create(StockReservedSchema, { orderId, lines });
const releasedEvent = create(StockReleasedSchema, { orderId, lines });
const nothingReleasedEvent = create(StockReleasedSchema, { orderId });

const none = noReservation(orderId);
const heldReservation: Reservation = { orderId, status: "HELD", lines };

/** 5 pieces of sku-a and 1 of sku-b, of which the reservation has taken its lines. */
function state(reservation: Reservation): InventoryState {
  const taken = reservation.status === "HELD" || reservation.status === "SOLD" ? reservation.lines : [];
  const level = (sku: string, initial: number) => {
    const quantity = taken.find((line) => line.sku === sku)?.quantity ?? 0;
    const isSold = reservation.status === "SOLD";
    return { available: initial - quantity, held: isSold ? 0 : quantity, sold: isSold ? quantity : 0 };
  };
  return {
    reservation,
    stock: new Map([
      ["sku-a", level("sku-a", 5)],
      ["sku-b", level("sku-b", 1)],
    ]),
  };
}

/** The state after the messages, and the events that they published. */
function given(from: InventoryState, ...messages: readonly InventoryMessage[]) {
  let after = from;
  const published = [];
  for (const message of messages) {
    for (const fact of decide(after, message)) {
      after = evolve(after, fact);
      const event = toEvent(orderId, fact);
      if (event !== undefined) published.push(event);
    }
  }
  return { after, published };
}

describe("an order that is placed", () => {
  test("a placed order holds every line", () => {
    expect(given(state(none), placed)).toEqual({ after: state(heldReservation), published: [reservedEvent] });
  });

  test("a placed order can hold the last piece", () => {
    const { after } = given(
      state(none),
      create(OrderPlacedSchema, { orderId, lines: [{ sku: "sku-b", quantity: 1 }] }),
    );
    expect(after.stock.get("sku-b")).toEqual({ available: 0, held: 1, sold: 0 });
  });

  test("a placed order holds nothing if one line is short, and publishes the shortage", () => {
    const tooMany = [
      { sku: "sku-a", quantity: 2 },
      { sku: "sku-b", quantity: 3 },
    ];
    expect(given(state(none), create(OrderPlacedSchema, { orderId, lines: tooMany }))).toEqual({
      after: { ...state(none), reservation: { orderId, status: "REFUSED" } },
      published: [
        create(StockReservationFailedSchema, {
          orderId,
          shortages: [{ sku: "sku-b", requested: 3, available: 1 }],
        }),
      ],
    });
  });

  test("a placed order with an unknown SKU is refused", () => {
    const { after, published } = given(
      state(none),
      create(OrderPlacedSchema, { orderId, lines: [{ sku: "sku-x", quantity: 1 }] }),
    );
    expect(after.reservation.status).toBe("REFUSED");
    expect(published).toEqual([
      create(StockReservationFailedSchema, {
        orderId,
        shortages: [{ sku: "sku-x", requested: 1, available: 0 }],
      }),
    ]);
  });

  test("a placed order with two lines of one SKU that fit alone but not together is refused", () => {
    const twice = [
      { sku: "sku-a", quantity: 3 },
      { sku: "sku-a", quantity: 3 },
    ];
    expect(given(state(none), create(OrderPlacedSchema, { orderId, lines: twice })).after.reservation.status).toBe(
      "REFUSED",
    );
  });
});

describe("held stock", () => {
  test("held stock is released when the payment failed", () => {
    expect(given(state(heldReservation), paymentFailed)).toEqual({
      after: state({ orderId, status: "RELEASED", lines }),
      published: [releasedEvent],
    });
  });

  test("held stock is sold when the order completes, and no event is published", () => {
    expect(given(state(heldReservation), completed)).toEqual({
      after: state({ orderId, status: "SOLD", lines }),
      published: [],
    });
  });

  test("held stock is released when the order is cancelled", () => {
    expect(given(state(heldReservation), cancelRequested)).toEqual({
      after: state({ orderId, status: "CANCELLED", lines }),
      published: [releasedEvent],
    });
  });
});

describe("a cancel", () => {
  test.each([
    ["NONE", none],
    ["REFUSED", { orderId, status: "REFUSED" }],
  ] as const)("a cancel of an order in %s is answered", (_, reservation) => {
    expect(given(state(reservation), cancelRequested)).toEqual({
      after: state({ orderId, status: "CANCELLED", lines: [] }),
      published: [nothingReleasedEvent],
    });
  });

  test("a cancel after a release releases nothing again, and keeps the released lines", () => {
    expect(given(state(heldReservation), paymentFailed, cancelRequested)).toEqual({
      after: state({ orderId, status: "CANCELLED", lines }),
      published: [releasedEvent, nothingReleasedEvent],
    });
  });

  test("an OrderPlaced that arrives after the cancel holds nothing", () => {
    expect(given(state(none), cancelRequested, placed)).toEqual({
      after: state({ orderId, status: "CANCELLED", lines: [] }),
      published: [nothingReleasedEvent],
    });
  });
});

describe("late, duplicate and out-of-order messages", () => {
  const reservations: readonly Reservation[] = [
    none,
    heldReservation,
    { orderId, status: "REFUSED" },
    { orderId, status: "RELEASED", lines },
    { orderId, status: "SOLD", lines },
    { orderId, status: "CANCELLED", lines },
  ];
  /** The messages that change a reservation, by its status. All others change nothing. */
  const effective: Readonly<Record<ReservationStatus, readonly InventoryMessage[]>> = {
    NONE: [placed, cancelRequested],
    HELD: [paymentFailed, completed, cancelRequested],
    REFUSED: [cancelRequested],
    RELEASED: [cancelRequested],
    SOLD: [],
    CANCELLED: [],
  };
  for (const reservation of reservations) {
    for (const message of [placed, paymentFailed, completed, cancelRequested]) {
      const matters = effective[reservation.status].includes(message);
      test(`${message.$typeName} in ${reservation.status} changes ${matters ? "the reservation" : "nothing"}`, () => {
        expect(decide(state(reservation), message).length > 0).toBe(matters);
      });
      test(`${message.$typeName} in ${reservation.status} keeps every SKU's sum and touches no other SKU`, () => {
        const before = state(reservation);
        const { after } = given(before, message, message);
        const touched = skusTouchedBy(reservation, message);
        for (const [sku, { available, held, sold }] of after.stock) {
          expect(available + held + sold).toBe(sku === "sku-a" ? 5 : 1);
          if (!touched.includes(sku)) expect(after.stock.get(sku)).toEqual(before.stock.get(sku));
        }
      });
    }
  }
});
