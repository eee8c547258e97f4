/** The two commands that change an order without an event: its owner cancels it, or the deadline sweep times it out. */
import type { NewEvent } from "../../proto/envelope.ts";
import type { Outbox } from "../../relay/outbox/append.ts";
import type { Database, Transaction } from "../kit/database.ts";
import { CommitOutcomeUnknownError } from "../kit/database-errors.ts";
import { DomainError } from "../kit/errors.ts";
import { decide, evolve, type OrderCommand, type OrderFact, type OrderState, toEvent } from "./domain.ts";
import type { SagaMetrics } from "./metrics.ts";
import {
  type LockedOrderWithHeaders,
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
  readonly sagaMetrics: Pick<SagaMetrics, "recordFacts">;
  /** Called after a commit that changed these orders. Must not throw. */
  readonly onChanged: (orderIds: readonly string[]) => void;
}

const reasonLengthMax = 500;

/** Returns the reason unchanged. @throws DomainError INVALID_ARGUMENT if it is longer than 500 characters. */
export function parseCancelReason(reason: string): string {
  // Counts code points, as the database column does. `length` would count most emoji twice.
  const length = [...reason].length;
  if (length <= reasonLengthMax) return reason;
  throw new DomainError(
    "INVALID_ARGUMENT",
    `reason must have at most ${reasonLengthMax} characters, but has ${length}.`,
  );
}

/**
 * Cancels an undecided order and returns its new state. No-op if compensation has started or finished. If a completion
 * arrives at the same time, one of the two wins, because both lock the order's row.
 * @throws DomainError NOT_FOUND; DomainError FAILED_PRECONDITION for a completed order.
 */
export async function cancelOrder(deps: CommandDeps, orderId: string, reason: string): Promise<OrderView> {
  reportCommitted(deps, await commitCancel(deps, orderId, reason));
  const [order] = await readOrders(deps.database, [orderId]);
  if (order === undefined) throw notFound(orderId);
  return order;
}

/**
 * Cancels the order in a transaction and returns the committed changes. If COMMIT's answer is lost, it makes a second
 * attempt. If that one finds nothing to do, the first one did commit, and its changes are returned.
 *
 * One case is reported twice: the first attempt did not commit, and another command cancelled the order in between. It
 * takes a lost answer and a concurrent command, and makes `order_compensations_total` one too high, so it is accepted.
 */
async function commitCancel(deps: CommandDeps, orderId: string, reason: string): Promise<Changes> {
  let first = noChanges;
  try {
    return await deps.database.transaction(async (transaction) => {
      first = await cancelLocked(deps, transaction, orderId, reason);
      return first;
    });
  } catch (error) {
    if (!(error instanceof CommitOutcomeUnknownError)) throw error;
  }
  const second = await deps.database.transaction((transaction) => cancelLocked(deps, transaction, orderId, reason));
  return second.orderIds.length > 0 ? second : first;
}

/** Locks the order's row and cancels the order. */
async function cancelLocked(
  deps: CommandDeps,
  transaction: Transaction,
  orderId: string,
  reason: string,
): Promise<Changes> {
  const order = await lockOrder(transaction, orderId);
  if (order === undefined) throw notFound(orderId);
  if (order.state.status === "COMPLETED") {
    throw new DomainError("FAILED_PRECONDITION", `Order ${orderId} is COMPLETED and can no longer be cancelled.`);
  }
  const changes = await applyCommand(deps, transaction, [order], { $typeName: "CancelOrder" });
  if (changes.orderIds.length > 0) await saveCancelReason(transaction, orderId, reason);
  return changes;
}

/**
 * Times out at most `countMax` orders whose deadline had passed at `asOf`, by the database's clock. Returns how many.
 * Several instances may call it at once.
 */
export async function timeOutOrders(deps: CommandDeps, asOf: Date, countMax: number): Promise<number> {
  const changes = await deps.database.transaction(async (transaction) => {
    const orders = await lockOverdueOrders(transaction, asOf, countMax);
    return await applyCommand(deps, transaction, orders, { $typeName: "TimeOutOrder" });
  });
  reportCommitted(deps, changes);
  return changes.orderIds.length;
}

/** What a command changed. */
interface Changes {
  readonly orderIds: readonly string[];
  readonly facts: readonly OrderFact[];
}

const noChanges: Changes = { orderIds: [], facts: [] };

/** Counts committed changes and announces them to the relay and to the watchers. */
function reportCommitted(deps: CommandDeps, { orderIds, facts }: Changes): void {
  if (orderIds.length === 0) return;
  deps.sagaMetrics.recordFacts(facts.map((fact) => ({ fact })));
  deps.onChanged(orderIds);
}

/** Applies the command to each locked order, and writes the changed rows and the events. */
async function applyCommand(
  deps: CommandDeps,
  transaction: Transaction,
  orders: readonly LockedOrderWithHeaders[],
  command: OrderCommand,
): Promise<Changes> {
  const changed: { before: OrderState; after: OrderState }[] = [];
  const allFacts: OrderFact[] = [];
  const events: NewEvent[] = [];
  for (const { state, headers } of orders) {
    const facts = decide(state, command);
    if (facts.length === 0) continue;
    changed.push({ before: state, after: facts.reduce(evolve, state) });
    allFacts.push(...facts);
    for (const fact of facts) {
      const message = toEvent(state.orderId, fact);
      if (message !== undefined) events.push({ id: deps.newId(), aggregateId: state.orderId, message, headers });
    }
  }
  await transaction.pipeline([...updateOrders(changed), ...deps.outbox.statements(events)]);
  return { orderIds: changed.map(({ before }) => before.orderId), facts: allFacts };
}

function notFound(orderId: string): DomainError {
  return new DomainError("NOT_FOUND", `There is no order ${orderId}.`);
}
