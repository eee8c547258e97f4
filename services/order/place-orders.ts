/** Places orders by group commit: requests that arrive while a transaction commits share the next one. */
import type { Outbox } from "../../relay/outbox/append.ts";
import type { Database } from "../kit/database.ts";
import { CommitOutcomeUnknownError, isDuplicateKey, isOutage } from "../kit/database-errors.ts";
import { DomainError } from "../kit/errors.ts";
import { createGroupCommit } from "../kit/group-commit.ts";
import { findOrPlaceOrders, type Placement, type PlacementResult, placeNewOrders, requestKey } from "./repository.ts";

/** The order that a request led to: a new one, or the one that it placed when it was sent before. */
export interface PlacedOrder {
  readonly orderId: string;
  readonly status: Exclude<PlacementResult, DomainError>["status"];
}

export interface OrderPlacer {
  /**
   * Resolves once the order is committed. If `signal` is aborted before its transaction starts, the order is not placed.
   * Repeating a request is always safe.
   * @throws DomainError ALREADY_EXISTS if the request id was used for a different order; the signal's reason, or
   * UnavailableError if too many requests wait or the process is closing: then the order is not placed; otherwise the
   * database's error: then the order may exist.
   */
  place(placement: Placement, signal: AbortSignal): Promise<PlacedOrder>;
  close(): Promise<void>;
}

/** The most orders in one transaction. */
const groupSizeMax = 100;
/** The most requests that may wait for a transaction: 27 s of work at 188 orders per second, the knee in load/README.md. */
const waitingMax = 5_000;
/** The most attempts at one group if COMMIT's answer is lost or a request was placed before. */
const attemptsMax = 4;

/**
 * Creates the process's order placer.
 * @param deps.onPlaced called after a commit with the number of new orders, if there are any.
 */
export function createOrderPlacer(deps: {
  readonly database: Database;
  readonly outbox: Outbox;
  /** After this time an undecided order is timed out. */
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
          const place = attempt === 1 ? placeNewOrders : findOrPlaceOrders;
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
