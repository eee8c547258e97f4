/** The configurations that are explored: which orders, how much stock, and what may go wrong. */
import { placedOrder, stockOf } from "../world/samples.ts";
import type { SagaOptions } from "./sagas.ts";

/** One exploration, without the domain code that it runs. */
export interface Configuration extends Omit<SagaOptions, "domains"> {
  readonly name: string;
}

const anyCommand = ["CancelOrder", "TimeOutOrder"] as const;
const cup = { sku: "sku-cup", quantity: 2 };
const rare = { sku: "sku-rare", quantity: 1 };
const oneOrder = [placedOrder(1, [cup, rare])];
const inStock = stockOf({ "sku-cup": 3, "sku-rare": 1 });
const twoOrders = [placedOrder(1, [cup, rare]), placedOrder(2, [rare])];

/** Take a second or less each. Every mutant of the domain code must be caught in one of them. */
export const smallConfigurations: readonly Configuration[] = [
  {
    name: "one order, one of its lines is out of stock",
    orders: oneOrder,
    stock: stockOf({ "sku-cup": 3, "sku-rare": 0 }),
    inboxes: "emptied",
    commands: [anyCommand],
    callsMax: 2,
    areCallsUnreliable: true,
  },
  {
    name: "one order, every call is answered",
    orders: oneOrder,
    stock: inStock,
    inboxes: "kept",
    commands: [anyCommand],
    callsMax: 1,
    areCallsUnreliable: false,
  },
  {
    name: "one order, one call at a time",
    orders: oneOrder,
    stock: inStock,
    inboxes: "kept",
    commands: [anyCommand],
    callsMax: 1,
    areCallsUnreliable: true,
  },
  {
    name: "one order, two calls at once, inboxes emptied",
    orders: oneOrder,
    stock: inStock,
    inboxes: "emptied",
    commands: [anyCommand],
    callsMax: 2,
    areCallsUnreliable: true,
  },
  {
    name: "two orders for the last piece, one may be cancelled",
    orders: twoOrders,
    stock: inStock,
    inboxes: "emptied",
    commands: [["CancelOrder"], []],
    callsMax: 1,
    areCallsUnreliable: false,
  },
];

/** Take several seconds, and about a minute. */
export const largeConfigurations: readonly Configuration[] = [
  {
    name: "one order, three calls at once, inboxes emptied",
    orders: oneOrder,
    stock: inStock,
    inboxes: "emptied",
    commands: [anyCommand],
    callsMax: 3,
    areCallsUnreliable: true,
  },
  {
    // No TimeOutOrder here: it differs from CancelOrder only in the failure reason, and one order alone covers that.
    name: "two orders for the last piece, one call at a time",
    orders: twoOrders,
    stock: inStock,
    inboxes: "kept",
    commands: [["CancelOrder"], ["CancelOrder"]],
    callsMax: 1,
    areCallsUnreliable: true,
  },
];
