/** What is done to an order from outside the saga: a cancel by its owner, a timeout by the sweeper. */
import type { NewEvent } from "../../proto/envelope.ts";
import type { Outbox } from "../../relay/outbox/append.ts";
import type { Database, Transaction } from "../kit/database.ts";
import { CommitOutcomeUnknownError } from "../kit/database-errors.ts";
import { DomainError } from "../kit/errors.ts";
import { decide, evolve, type OrderCommand, type OrderFact, type OrderState, toEvent } from "./domain.ts";
import type { SagaMetrics } from "./metrics.ts";
import {
  type LockedOrder,
  lockOrder,
  lockOverdueOrders,
  type OrderView,
  readOrders,
  saveCancelReason,
  updateOrders,
} from "./repository.ts";

export interface CommandDeps {
  readonly database: Database;
  readonly outbox: Outbox;
  readonly newId: () => string;
  readonly sagas: Pick<SagaMetrics, "stepped">;
  /** After a commit that changed these orders. Must not throw. */
  readonly onChanged: (orderIds: readonly string[]) => void;
}

const reasonLengthMax = 500;

/** The reason as it is kept. @throws DomainError INVALID_ARGUMENT when it is too long. */
export function parseCancelReason(reason: string): string {
  // What a reader counts, and the column: an emoji is one.
  const length = [...reason].length;
  if (length <= reasonLengthMax) return reason;
  throw new DomainError(
    "INVALID_ARGUMENT",
    `reason must have at most ${reasonLengthMax} characters, but has ${length}.`,
  );
}

/**
 * Cancels an order that is not decided yet; answers its state after that. One that is being undone, or is, stays as it is.
 * Against a completion that arrives at the same time, one of the two wins: both lock the order's row.
 * @throws DomainError NOT_FOUND; FAILED_PRECONDITION for a completed order.
 */
export async function cancelOrder(deps: CommandDeps, orderId: string, reason: string): Promise<OrderView> {
  let tried = nothing;
  const cancel = () =>
    deps.database.transaction(async (transaction) => {
      const order = await lockOrder(transaction, orderId);
      if (order === undefined) throw notFound(orderId);
      if (order.state.status === "COMPLETED") {
        throw new DomainError("FAILED_PRECONDITION", `Order ${orderId} is COMPLETED and cannot be cancelled any more.`);
      }
      tried = await carryOut(deps, transaction, [order], { $typeName: "CancelOrder" });
      if (tried.orderIds.length > 0) await saveCancelReason(transaction, orderId, reason);
      return tried;
    });
  try {
    committed(deps, await cancel());
  } catch (error) {
    if (!(error instanceof CommitOutcomeUnknownError)) throw error;
    const lost = tried;
    const { orderIds } = await cancel();
    // With nothing left to do, the one whose answer was lost has done it, or somebody else has meanwhile: then it is
    // told twice.
    committed(deps, orderIds.length > 0 ? tried : lost);
  }
  const [order] = await readOrders(deps.database, [orderId]);
  if (order === undefined) throw notFound(orderId);
  return order;
}

/**
 * Gives up to `countMax` orders up whose deadline had passed at `asOf`, by the database's clock; tells how many. Safe in
 * several instances at once.
 */
export async function timeOutOrders(deps: CommandDeps, asOf: Date, countMax: number): Promise<number> {
  const carriedOut = await deps.database.transaction(async (transaction) => {
    const orders = await lockOverdueOrders(transaction, asOf, countMax);
    return await carryOut(deps, transaction, orders, { $typeName: "TimeOutOrder" });
  });
  committed(deps, carriedOut);
  return carriedOut.orderIds.length;
}

/** What a command came to. */
interface CarriedOut {
  /** The orders that changed. */
  readonly orderIds: readonly string[];
  readonly facts: readonly OrderFact[];
}

const nothing: CarriedOut = { orderIds: [], facts: [] };

function committed(deps: CommandDeps, { orderIds, facts }: CarriedOut): void {
  if (orderIds.length === 0) return;
  deps.sagas.stepped(facts.map((fact) => ({ fact })));
  deps.onChanged(orderIds);
}

/** Decides the command on each locked order, writes what changed and what others must hear. */
async function carryOut(
  deps: CommandDeps,
  transaction: Transaction,
  orders: readonly LockedOrder[],
  command: OrderCommand,
): Promise<CarriedOut> {
  const changes: { before: OrderState; after: OrderState }[] = [];
  const happened: OrderFact[] = [];
  const events: NewEvent[] = [];
  for (const { state, headers } of orders) {
    const facts = decide(state, command);
    if (facts.length === 0) continue;
    changes.push({ before: state, after: facts.reduce(evolve, state) });
    happened.push(...facts);
    for (const fact of facts) {
      const message = toEvent(state.orderId, fact);
      if (message !== undefined) events.push({ id: deps.newId(), aggregateId: state.orderId, message, headers });
    }
  }
  await transaction.pipeline([...updateOrders(changes), ...deps.outbox.statements(events)]);
  return { orderIds: changes.map(({ before }) => before.orderId), facts: happened };
}

function notFound(orderId: string): DomainError {
  return new DomainError("NOT_FOUND", `There is no order ${orderId}.`);
}
