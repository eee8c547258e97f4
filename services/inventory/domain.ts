/**
 * An order's stock as pure functions: `decide` says what a message means for the order's reservation and the stock levels
 * that it touches, `evolve` gives both after it. No I/O, no clock, no randomness.
 *
 *     NONE → HELD → SOLD, or RELEASED after a declined payment
 *     NONE → REFUSED, if a line is short
 *     every status but SOLD → CANCELLED, after a cancel or a timeout
 *
 * The events between the services are listed in proto/event-table.ts.
 */
import { create, type Message } from "@bufbuild/protobuf";
import type { HandledBy } from "../../proto/event-table.ts";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { unreachable } from "../kit/errors.ts";

/** Pieces of one SKU. */
export interface Line {
  readonly sku: string;
  readonly quantity: number;
}

/** A SKU's pieces by what became of them. Their sum never changes. */
export interface StockLevel {
  readonly available: number;
  readonly held: number;
  readonly sold: number;
}

/** Levels by SKU. A missing SKU is unknown to inventory: nothing of it is available. */
export type StockLevels = ReadonlyMap<string, StockLevel>;

/** One order's reservation. `lines` are the pieces that are or were held. */
export type Reservation = { readonly orderId: string } & (
  | { readonly status: "NONE" }
  | { readonly status: "HELD"; readonly lines: readonly Line[] }
  | { readonly status: "REFUSED" }
  | { readonly status: "RELEASED"; readonly lines: readonly Line[] }
  | { readonly status: "SOLD"; readonly lines: readonly Line[] }
  /** Nothing is held any more. Kept, so that an OrderPlaced that arrives after the cancel reserves nothing. */
  | { readonly status: "CANCELLED"; readonly lines: readonly Line[] }
);

export type ReservationStatus = Reservation["status"];

/** A reservation, with the levels of at least the SKUs that {@link skusTouchedBy} returns. */
export interface InventoryState {
  readonly reservation: Reservation;
  readonly stock: StockLevels;
}

/** Everything that inventory can receive for an order. */
export type InventoryMessage = HandledBy<"inventory">;

/** A SKU of which an order wants more than is available. */
export interface Shortage {
  readonly sku: string;
  readonly requested: number;
  readonly available: number;
}

/** A change of an order's stock. {@link toEvent} says which changes are published to the other services. */
export type InventoryFact =
  | { readonly kind: "Reserved"; readonly lines: readonly Line[] }
  | { readonly kind: "ReservationFailed"; readonly shortages: readonly Shortage[] }
  | { readonly kind: "Released"; readonly lines: readonly Line[] }
  | { readonly kind: "Sold"; readonly lines: readonly Line[] }
  /** `lines` are the pieces that the cancel released: none if nothing was held. */
  | { readonly kind: "Cancelled"; readonly lines: readonly Line[] };

/** The reservation of an order that inventory has no events of yet. */
export function noReservation(orderId: string): Reservation {
  return { orderId, status: "NONE" };
}

/** The SKUs whose levels `decide` reads or `evolve` changes for this message. */
export function skusTouchedBy(reservation: Reservation, message: InventoryMessage): readonly string[] {
  switch (message.$typeName) {
    case "shop.order.v1.OrderPlaced":
      return reservation.status === "NONE" ? message.lines.map(({ sku }) => sku) : [];
    case "shop.payment.v1.PaymentFailed":
    case "shop.order.v1.OrderCompleted":
    case "shop.order.v1.OrderCancelRequested":
      return reservation.status === "HELD" ? reservation.lines.map(({ sku }) => sku) : [];
    default:
      return unreachable(message);
  }
}

/** What a message changes. A late, duplicate or out-of-order message changes nothing: the list is empty. */
export function decide({ reservation, stock }: InventoryState, message: InventoryMessage): readonly InventoryFact[] {
  switch (message.$typeName) {
    case "shop.order.v1.OrderPlaced": {
      if (reservation.status !== "NONE") return [];
      const lines = sumBySku(message.lines);
      const shortages = lines.flatMap(({ sku, quantity }) => {
        const available = stock.get(sku)?.available ?? 0;
        return quantity > available ? [{ sku, requested: quantity, available }] : [];
      });
      return shortages.length === 0 ? [{ kind: "Reserved", lines }] : [{ kind: "ReservationFailed", shortages }];
    }
    case "shop.payment.v1.PaymentFailed":
      return reservation.status === "HELD" ? [{ kind: "Released", lines: reservation.lines }] : [];
    case "shop.order.v1.OrderCompleted":
      return reservation.status === "HELD" ? [{ kind: "Sold", lines: reservation.lines }] : [];
    case "shop.order.v1.OrderCancelRequested":
      switch (reservation.status) {
        case "HELD":
          return [{ kind: "Cancelled", lines: reservation.lines }];
        case "NONE":
        case "REFUSED":
        case "RELEASED":
          // Order waits for an answer even if there is nothing to undo.
          return [{ kind: "Cancelled", lines: [] }];
        case "SOLD":
        case "CANCELLED":
          return [];
        default:
          return unreachable(reservation);
      }
    default:
      return unreachable(message);
  }
}

/** The reservation and the stock levels after a fact. */
export function evolve({ reservation, stock }: InventoryState, fact: InventoryFact): InventoryState {
  const { orderId } = reservation;
  switch (fact.kind) {
    case "Reserved":
      return {
        reservation: { orderId, status: "HELD", lines: fact.lines },
        stock: move(stock, fact.lines, "available", "held"),
      };
    case "ReservationFailed":
      return { reservation: { orderId, status: "REFUSED" }, stock };
    case "Released":
      return {
        reservation: { orderId, status: "RELEASED", lines: fact.lines },
        stock: move(stock, fact.lines, "held", "available"),
      };
    case "Sold":
      return {
        reservation: { orderId, status: "SOLD", lines: fact.lines },
        stock: move(stock, fact.lines, "held", "sold"),
      };
    case "Cancelled": {
      // Keeps the lines that were released before the cancel: the auditor compares them with the published events.
      const lines = reservation.status === "RELEASED" ? reservation.lines : fact.lines;
      return {
        reservation: { orderId, status: "CANCELLED", lines },
        stock: move(stock, fact.lines, "held", "available"),
      };
    }
    default:
      return unreachable(fact);
  }
}

/** The event that publishes a fact; undefined if the fact concerns only inventory. */
export function toEvent(orderId: string, fact: InventoryFact): Message | undefined {
  switch (fact.kind) {
    case "Reserved":
      return create(StockReservedSchema, { orderId, lines: [...fact.lines] });
    case "ReservationFailed":
      return create(StockReservationFailedSchema, { orderId, shortages: [...fact.shortages] });
    case "Released":
    case "Cancelled":
      return create(StockReleasedSchema, { orderId, lines: [...fact.lines] });
    case "Sold":
      return undefined;
    default:
      return unreachable(fact);
  }
}

function move(stock: StockLevels, lines: readonly Line[], from: keyof StockLevel, to: keyof StockLevel): StockLevels {
  const moved = new Map(stock);
  for (const { sku, quantity } of lines) {
    const level = moved.get(sku) ?? { available: 0, held: 0, sold: 0 };
    moved.set(sku, { ...level, [from]: level[from] - quantity, [to]: level[to] + quantity });
  }
  return moved;
}

/** Adds up lines of the same SKU: each could fit alone and both together not. Order sends each SKU only once; this is a safeguard. */
function sumBySku(lines: readonly Line[]): readonly Line[] {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of lines) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  return Array.from(quantities, ([sku, quantity]) => ({ sku, quantity }));
}
