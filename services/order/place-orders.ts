/** PlaceOrder's way into the database: requests that arrive while a transaction commits share the next one. */
import type { Outbox } from "../../relay/outbox/append.ts";
import type { Database } from "../kit/database.ts";
import { CommitOutcomeUnknownError, isDuplicateKey, isOutage } from "../kit/database-errors.ts";
import { DomainError } from "../kit/errors.ts";
import { createGroupCommit } from "../kit/group-commit.ts";
import { type Placement, type PlacementResult, placeNewOrders, placeOrders, requestKey } from "./repository.ts";

/** An order that exists: a new one, or the one that the same request placed before. */
export interface PlacedOrder {
  readonly orderId: string;
  readonly status: Exclude<PlacementResult, DomainError>["status"];
}

export interface OrderPlacer {
  /**
   * Resolves once the order is committed.
   * @throws DomainError ALREADY_EXISTS when the request id was used for something else; UnavailableError when the
   * database did not answer (the order may exist: the same request again settles it).
   */
  place(placement: Placement, signal: AbortSignal): Promise<PlacedOrder>;
  close(): Promise<void>;
}

/** Orders in one transaction, at the most. */
const groupSizeMax = 100;
/** Requests that may wait for a transaction: seconds of work at the highest rates measured. */
const waitingMax = 5_000;
/** Looks after a lost COMMIT or a request that raced with itself, before giving up. */
const settleAttemptsMax = 4;

/** @param deps.onPlaced called after a commit that placed something, with how many orders are new. */
export function createOrderPlacer(deps: {
  readonly database: Database;
  readonly outbox: Outbox;
  /** How long an order may stay undecided. */
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
          // Hardly a request comes twice: whether one did is only looked at when its key is there already.
          const place = attempt === 1 ? placeNewOrders : placeOrders;
          const results = await place(deps.database, deps.outbox, placements, deps.deadlineMs);
          const count = results.filter((result) => "isNew" in result && result.isNew).length;
          if (count > 0) deps.onPlaced(count);
          return results;
        } catch (error) {
          // Doing it again looks first: what is there already is answered, not placed a second time.
          const settles = error instanceof CommitOutcomeUnknownError || isDuplicateKey(error);
          if (!settles || attempt >= settleAttemptsMax) throw error;
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
