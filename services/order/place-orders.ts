/** Places orders by group commit: requests that arrive while a transaction commits share the next one. */
import type { Outbox } from "../../relay/outbox/append.ts";
import type { Database } from "../kit/database.ts";
import { CommitOutcomeUnknownError, isDuplicateKey, isOutage } from "../kit/database-errors.ts";
import { DomainError } from "../kit/errors.ts";
import { createGroupCommit } from "../kit/group-commit.ts";
import { type Placement, type PlacementResult, placeNewOrders, placeOrders, requestKey } from "./repository.ts";

/** The order of a request: a new one, or the one that the same request has placed before. */
export interface PlacedOrder {
  readonly orderId: string;
  readonly status: Exclude<PlacementResult, DomainError>["status"];
}

export interface OrderPlacer {
  /**
   * Resolves once the order is committed. If `signal` is aborted before its transaction starts, the order is not placed.
   * @throws DomainError ALREADY_EXISTS if the request id was used for a different order; UnavailableError if the database
   * did not answer. Then the order may exist, and repeating the request is safe.
   */
  place(placement: Placement, signal: AbortSignal): Promise<PlacedOrder>;
  close(): Promise<void>;
}

/** The most orders in one transaction. */
const groupSizeMax = 100;
/** The most requests that may wait for a transaction: several seconds of work at the highest rate measured. */
const waitingMax = 5_000;
/** The most attempts at one group if COMMIT's answer is lost or another instance places the same request. */
const attemptsMax = 4;

/**
 * Creates the process's order placer.
 * @param deps.onPlaced called after a commit with the number of new orders, if there are any.
 */
export function createOrderPlacer(deps: {
  readonly database: Database;
  readonly outbox: Outbox;
  /** After this time an undecided order is given up. */
  readonly deadlineMs: number;
  readonly onPlaced: (count: number) => void;
}): OrderPlacer {
  const group = createGroupCommit<Placement, PlacementResult>({
    sizeMax: groupSizeMax,
    waitingMax,
    keyOf: ({ order }) => requestKey(order.owner, order.requestId),
    isOutage,
    async commit(placements) {
      for (let attempt = 1; ; attempt++) {
        try {
          // Requests rarely come twice, so the first attempt does not look for existing orders.
          const place = attempt === 1 ? placeNewOrders : placeOrders;
          const results = await place(deps.database, deps.outbox, placements, deps.deadlineMs);
          const count = results.filter((result) => "isNew" in result && result.isNew).length;
          if (count > 0) deps.onPlaced(count);
          return results;
        } catch (error) {
          // Some of the orders may exist. The next attempt looks for them first and places only the others.
          const mayExist = error instanceof CommitOutcomeUnknownError || isDuplicateKey(error);
          if (!mayExist || attempt >= attemptsMax) throw error;
        }
      }
    },
  });
  return {
    async place(placement, signal) {
      const result = await group.submit(placement, signal);
      if (result instanceof DomainError) throw result;
      return { orderId: result.orderId, status: result.status };
    },
    close: () => group.close(),
  };
}
