/** The two commands that change an order from outside the event flow: cancel, by its owner, and time out, by the deadline sweep. */
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
  /** Called after a commit that changed these orders. Must not throw. */
  readonly onChanged: (orderIds: readonly string[]) => void;
}

const reasonLengthMax = 500;

/** Returns the reason unchanged. @throws DomainError INVALID_ARGUMENT if it is longer than 500 characters. */
export function parseCancelReason(reason: string): string {
  // Counts characters as the database column does: an emoji is one, although a JavaScript string has two units for it.
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
  let attempted = noChanges;
  const cancel = () =>
    deps.database.transaction(async (transaction) => {
      const order = await lockOrder(transaction, orderId);
      if (order === undefined) throw notFound(orderId);
      if (order.state.status === "COMPLETED") {
        throw new DomainError("FAILED_PRECONDITION", `Order ${orderId} is COMPLETED and can no longer be cancelled.`);
      }
      attempted = await applyCommand(deps, transaction, [order], { $typeName: "CancelOrder" });
      if (attempted.orderIds.length > 0) await saveCancelReason(transaction, orderId, reason);
      return attempted;
    });
  try {
    report(deps, await cancel());
  } catch (error) {
    if (!(error instanceof CommitOutcomeUnknownError)) throw error;
    const unconfirmed = attempted;
    const repeated = await cancel();
    // If the second attempt finds nothing to do, the first one did commit. (Or another caller cancelled in between; then
    // the change is reported twice.)
    report(deps, repeated.orderIds.length > 0 ? repeated : unconfirmed);
  }
  const [order] = await readOrders(deps.database, [orderId]);
  if (order === undefined) throw notFound(orderId);
  return order;
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
  report(deps, changes);
  return changes.orderIds.length;
}

/** What a command changed. */
interface Changes {
  readonly orderIds: readonly string[];
  readonly facts: readonly OrderFact[];
}

const noChanges: Changes = { orderIds: [], facts: [] };

/** Counts committed changes and notifies the watchers. */
function report(deps: CommandDeps, { orderIds, facts }: Changes): void {
  if (orderIds.length === 0) return;
  deps.sagas.stepped(facts.map((fact) => ({ fact })));
  deps.onChanged(orderIds);
}

/** Decides the command on each locked order; writes the changed rows and the events. */
async function applyCommand(
  deps: CommandDeps,
  transaction: Transaction,
  orders: readonly LockedOrder[],
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
