import type { Queryable } from "../kit/database.ts";
import { createGroupCommit } from "../kit/group-commit.ts";
import { type OrderView, readOrders } from "./repository.ts";

/**
 * The order as it is after this call, or undefined if there is none. It is not read once `signal` is aborted.
 * @throws what the database throws; UnavailableError if too many reads wait already.
 */
export type OrderReader = (orderId: string, signal: AbortSignal) => Promise<OrderView | undefined>;

/**
 * The most orders in one round trip. Large, because a process that thousands of watchers come to at once is busy with
 * them for most of each round trip.
 */
const groupSizeMax = 5_000;
const waitingMax = 20_000;

/**
 * Reads orders by the group, as orders are placed: requests that arrive while one group is read share the next read. It uses
 * one connection at a time, however many requests there are.
 */
export function createOrderReader(database: Queryable): OrderReader {
  const group = createGroupCommit<string, OrderView | undefined>({
    sizeMax: groupSizeMax,
    waitingMax,
    gathersTurn: true,
    // A read that fails for some orders fails for all of them.
    isOutage: () => true,
    async commit(orderIds) {
      const orders = await readOrders(database, [...new Set(orderIds)]);
      const byId = new Map(orders.map((order) => [order.orderId, order]));
      return orderIds.map((orderId) => byId.get(orderId));
    },
  });
  return (orderId, signal) => group.submit(orderId, signal);
}
