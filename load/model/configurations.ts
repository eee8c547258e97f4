/** The explorations that are made: small ones first. */
import { create } from "@bufbuild/protobuf";
import { type OrderPlaced, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import * as inventory from "../../services/inventory/domain.ts";
import * as order from "../../services/order/domain.ts";
import * as payment from "../../services/payment/domain.ts";
import type { SagaOptions } from "./saga.ts";
import type { Domains, Line, StockLevels } from "./world.ts";

/** The code that runs in production. */
export const realDomains: Domains = { order, inventory, payment };

/** What is explored, apart from the code under examination. */
export interface Configuration extends Omit<SagaOptions, "domains"> {
  readonly name: string;
}

/** An order that was just placed, at 10.01 a piece: an odd total shows where half of it is lost. */
export function placedOrder(number: number, lines: readonly Line[]): OrderPlaced {
  const pieces = lines.reduce((sum, { quantity }) => sum + quantity, 0);
  return create(OrderPlacedSchema, {
    orderId: `order-${number}`,
    lines: [...lines],
    total: { currencyCode: "EUR", minorUnits: BigInt(pieces) * 1_001n },
    paymentMethod: "pm_ok",
  });
}

/** Stock of which nothing is held or sold yet. */
export function stockOf(available: Readonly<Record<string, number>>): StockLevels {
  return new Map(Object.entries(available).map(([sku, pieces]) => [sku, { available: pieces, held: 0, sold: 0 }]));
}

const anyCommand = ["CancelOrder", "TimeOutOrder"] as const;
const cup = { sku: "sku-cup", quantity: 2 };
const rare = { sku: "sku-rare", quantity: 1 };
const oneOrder = [placedOrder(1, [cup, rare])];
const inStock = stockOf({ "sku-cup": 3, "sku-rare": 1 });
const twoOrders = [placedOrder(1, [cup, rare]), placedOrder(2, [rare])];

/** Small ones, in which each mutant has to be found. */
export const smallConfigurations: readonly Configuration[] = [
  {
    name: "one order, one of its lines is out of stock",
    orders: oneOrder,
    stock: stockOf({ "sku-cup": 3, "sku-rare": 0 }),
    inboxes: "emptied",
    commands: [anyCommand],
    callsMax: 2,
    areCallsLost: true,
  },
  {
    name: "one order, every call is answered",
    orders: oneOrder,
    stock: inStock,
    inboxes: "kept",
    commands: [anyCommand],
    callsMax: 1,
    areCallsLost: false,
  },
  {
    name: "one order, one call at a time",
    orders: oneOrder,
    stock: inStock,
    inboxes: "kept",
    commands: [anyCommand],
    callsMax: 1,
    areCallsLost: true,
  },
  {
    name: "one order, two calls at once, inboxes emptied",
    orders: oneOrder,
    stock: inStock,
    inboxes: "emptied",
    commands: [anyCommand],
    callsMax: 2,
    areCallsLost: true,
  },
  {
    name: "two orders for the last piece, one may be cancelled",
    orders: twoOrders,
    stock: inStock,
    inboxes: "emptied",
    commands: [["CancelOrder"], []],
    callsMax: 1,
    areCallsLost: false,
  },
];

/** Those that take seconds each. */
export const largeConfigurations: readonly Configuration[] = [
  {
    name: "one order, three calls at once, inboxes emptied",
    orders: oneOrder,
    stock: inStock,
    inboxes: "emptied",
    commands: [anyCommand],
    callsMax: 3,
    areCallsLost: true,
  },
  {
    // A time-out differs from a cancel in its reason only, which one order alone has shown.
    name: "two orders for the last piece, one call at a time",
    orders: twoOrders,
    stock: inStock,
    inboxes: "kept",
    commands: [["CancelOrder"], ["CancelOrder"]],
    callsMax: 1,
    areCallsLost: true,
  },
];
