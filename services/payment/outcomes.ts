/** Records the outcomes of gateway calls: many in one transaction, each with the events that it leads to. */
import type { NewEvent } from "../../proto/envelope.ts";
import type { Outbox } from "../../relay/outbox/append.ts";
import type { HintSender } from "../../relay/outbox/hint.ts";
import type { Database, OwnTransaction } from "../kit/database.ts";
import { isDataError } from "../kit/database-errors.ts";
import { createGroupCommit } from "../kit/group-commit.ts";
import type { Logger } from "../kit/log.ts";
import { type GatewayCall, type GatewayOutcome, nextCall } from "./domain.ts";
import type { GatewayAnswer } from "./gateway-client.ts";
import { applyMessage, eventsOf, writesOf } from "./handlers.ts";
import { outcomeLabel, type PaymentMetrics } from "./metrics.ts";
import { lockPayments, type Payment } from "./repository.ts";

/** A call that was made, with its answer. */
export interface AnsweredCall {
  readonly call: GatewayCall;
  readonly answer: GatewayAnswer;
  /** When to repeat the call if the answer settles nothing. */
  readonly retryInMs: number;
}

export interface OutcomeDeps {
  readonly database: Database;
  readonly outbox: Outbox;
  readonly hints: HintSender;
  readonly newId: () => string;
  readonly log: Logger;
  readonly metrics: PaymentMetrics;
}

export interface OutcomeRecorder {
  /** Records an outcome together with those that arrive while others are being recorded. @throws what the database throws. */
  record(answered: AnsweredCall): Promise<void>;
  /** Records an outcome in a transaction of its own. For one that failed before: it may be what the others failed with. */
  recordAlone(answered: AnsweredCall): Promise<void>;
  /** Resolves when all outcomes that were passed to `record` are done. */
  close(): Promise<void>;
}

export function createOutcomeRecorder(deps: OutcomeDeps): OutcomeRecorder {
  const record = async (answered: readonly AnsweredCall[]) => {
    try {
      await recordOutcomes(deps, answered);
    } catch (error) {
      deps.metrics.failed("record");
      deps.log.error({ err: error, calls: answered.length }, "gateway outcomes not recorded");
      throw error;
    }
  };
  const group = createGroupCommit<AnsweredCall, undefined>({
    sizeMax: 500,
    waitingMax: 10_000,
    async commit(answered) {
      await record(answered);
      return answered.map(() => undefined);
    },
    isOutage: (error) => !isDataError(error),
  });
  return { record: group.submit, recordAlone: (answered) => record([answered]), close: group.close };
}

async function recordOutcomes(deps: OutcomeDeps, answered: readonly AnsweredCall[]): Promise<void> {
  const apply = async (transaction: OwnTransaction) => {
    const orderIds = [...new Set(answered.map(({ call }) => call.orderId))];
    const { payments: before, unreadable, now } = await lockPayments(transaction, orderIds);
    const after = new Map(before);
    const publish: NewEvent[] = [];
    let refused = 0;
    for (const { call, answer, retryInMs } of answered) {
      const payment = after.get(call.orderId);
      // Another instance or a cancel may have settled this call in the meantime. An unreadable payment is left as it is.
      if (payment?.pending === undefined) continue;
      const { cause } = payment.pending;
      const { changed, facts } = applyMessage(payment, answer.outcome, cause, now);
      if (changed.pending !== undefined && mustRepeat(answer.outcome) && isPending(call, changed)) {
        const dueAt = new Date(now.getTime() + retryInMs);
        after.set(call.orderId, { ...changed, pending: { ...changed.pending, dueAt } });
      } else if (facts.length > 0) {
        after.set(call.orderId, changed);
      }
      publish.push(...eventsOf(call.orderId, facts, cause, deps.newId));
      if (payment.state.status !== "VOID_REFUSED" && changed.state.status === "VOID_REFUSED") refused++;
    }
    await transaction.commit([...writesOf(before, after), ...deps.outbox.statements(publish)]);
    return { published: publish.length, voidsRefused: refused, unreadable };
  };
  const { published, voidsRefused, unreadable } = await deps.database.transaction(apply, {
    // Outcomes that share a transaction are then retried one by one: the others need not wait for that lock again.
    retryLockWaits: answered.length === 1,
  });
  deps.metrics.voidsRefused(voidsRefused);
  deps.metrics.unreadable("record", unreadable.size);
  for (const error of unreadable.values()) deps.log.error({ err: error }, "gateway outcome skipped");
  if (published > 0) deps.hints.send();
  logOutcomes(deps.log, answered, published);
}

/** True if the outcome leaves the call to be made again. */
function mustRepeat({ $typeName }: GatewayOutcome): boolean {
  return $typeName === "GatewayUnknown" || $typeName === "GatewayVoidRefused";
}

/** True if the payment still waits for this call. After a cancel it waits for another one. */
function isPending(call: GatewayCall, payment: Payment): boolean {
  return nextCall(payment.state)?.idempotencyKey === call.idempotencyKey;
}

function logOutcomes(log: Logger, answered: readonly AnsweredCall[], published: number): void {
  const outcomes: Record<string, number> = {};
  for (const { answer } of answered) {
    const label = outcomeLabel(answer);
    outcomes[label] = (outcomes[label] ?? 0) + 1;
  }
  const entry = { calls: answered.length, outcomes, published };
  const faulty = answered.find(({ answer }) => answer.fault !== undefined);
  if (faulty === undefined) log.info(entry, "gateway outcomes");
  else
    log.error({ ...entry, orderId: faulty.call.orderId, fault: faulty.answer.fault }, "the gateway refuses our calls");
}
