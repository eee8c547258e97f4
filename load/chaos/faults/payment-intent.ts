/** Payment frozen between the commit of its intent to call the gateway and the call itself. */
import { sleep } from "../../../services/kit/backoff.ts";
import { schemaName } from "../../../services/stack/services.ts";
import { isFrozen } from "../processes.ts";
import { type ChaosStack, orderDeadlineMs } from "../stack.ts";
import { type FaultKind, missed, until, witnessed } from "./fault.ts";

const claimAttemptsMax = 40;
const claimTimeoutMs = 15_000;
/** How long the COMMIT of a claim may take to reach the database. */
const commitMaxMs = 200;
const lateCallMaxMs = 5_000;

/**
 * Freezes Payment as the COMMIT of its claim leaves it: the intent is stored, and the gateway has not been called. While
 * it is frozen, the order passes its deadline and is cancelled, and a second instance voids a payment that was never
 * authorised. Then the first instance continues with its call.
 */
export const frozenIntent: FaultKind = {
  name: "payment frozen before its call",
  targets: ["payment"],
  async strike({ stack }) {
    const { processes } = stack;
    const pid = processes.pidOf("payment");
    const voidedBefore = await callsAnsweredVoided(stack);
    const orderIds = await freezeAtClaim(stack);
    if (typeof orderIds === "string") return missed(orderIds);
    try {
      if (!(await untilAll(stack, orderIds, "failure_reason IN ('TIMED_OUT', 'CANCELLED')"))) {
        return missed("its orders were not cancelled or timed out");
      }
      await stack.startSpare("payment");
      if (!(await untilAll(stack, orderIds, "status = 'FAILED'"))) {
        return missed("the second instance did not compensate its orders");
      }
      if (!(await isFrozen(pid))) return missed("the process did not stay frozen");
      processes.signal("payment", "SIGCONT");
      await until(async () => (await callsAnsweredVoided(stack)) > voidedBefore, lateCallMaxMs);
    } finally {
      processes.signal("payment", "SIGCONT");
      await processes.stop(stack.spareName("payment"));
    }
    const late = (await callsAnsweredVoided(stack)) - voidedBefore;
    return witnessed(
      [[orderIds.length, "intents committed and not called; their orders were compensated while it was frozen"]],
      late > 0 ? `${late} calls came after the void and were refused` : "it dropped its calls when it continued",
    );
  },
};

/**
 * Freezes Payment at a claim, again and again until it has stored an intent and not called the gateway. Returns the orders
 * of these intents, with Payment frozen; or, with Payment running, why there are none.
 */
async function freezeAtClaim(stack: ChaosStack): Promise<readonly string[] | string> {
  for (let attempt = 0; attempt < claimAttemptsMax; attempt++) {
    if (!(await atClaim(stack, () => stack.processes.signal("payment", "SIGSTOP")))) return "payment claims nothing";
    const orderIds = await uncalledIntents(stack);
    if (orderIds.length > 0) return orderIds;
    stack.processes.signal("payment", "SIGCONT");
  }
  return `none of ${claimAttemptsMax} claims had a first call and no other open transaction beside it`;
}

/** Calls `strike` as the COMMIT of a claim leaves Payment. False if no claim came within 15 s. */
async function atClaim(stack: ChaosStack, strike: () => void): Promise<boolean> {
  const claiming = new WeakSet<object>();
  const struck = new AbortController();
  const stopListening = stack.links.get("payment", "mariadb").proxy.onRequest((bytes, connection) => {
    if (struck.signal.aborted) return;
    if (bytes.includes("attempts = attempts + 1")) claiming.add(connection);
    if (!claiming.has(connection) || !bytes.includes("COMMIT")) return;
    strike();
    struck.abort();
  });
  await sleep(claimTimeoutMs, struck.signal);
  stopListening();
  return struck.signal.aborted;
}

/**
 * Orders whose first authorisation is claimed, and of which the gateway knows nothing. None if Payment was frozen inside
 * another transaction as well: that transaction's locks would keep a second instance from these rows.
 */
async function uncalledIntents(stack: ChaosStack): Promise<readonly string[]> {
  await sleep(commitMaxMs);
  const open = await stack.sources.databases.payment.query(
    `SELECT trx_id FROM information_schema.INNODB_TRX
       JOIN information_schema.PROCESSLIST ON ID = trx_mysql_thread_id WHERE USER = ?`,
    [schemaName("payment")],
  );
  if (open.length > 0) return [];
  const rows = await stack.sources.databases.payment.query<{ order_id: string }>(
    `SELECT order_id FROM payment
      WHERE status = 'AUTHORIZING' AND attempts = 1 AND next_attempt_at > CURRENT_TIMESTAMP(3)`,
  );
  const uncalled: string[] = [];
  for (const { order_id: orderId } of rows) {
    const response = await fetch(`${stack.gatewayUrl}/v1/orders/${orderId}`);
    const known = (await response.json()) as { readonly authorizations: readonly unknown[] };
    if (known.authorizations.length === 0) uncalled.push(orderId);
  }
  return uncalled;
}

/** Waits until `condition` holds for all of the orders. False if it does not within three order deadlines. */
function untilAll({ sources }: ChaosStack, orderIds: readonly string[], condition: string): Promise<boolean> {
  return until(async () => {
    const rows = await sources.databases.order.query(
      `SELECT order_id FROM orders WHERE order_id IN (?) AND ${condition}`,
      [orderIds],
    );
    return rows.length === orderIds.length;
  }, 3 * orderDeadlineMs);
}

const callsAnsweredVoided = ({ processes }: ChaosStack) =>
  processes.metric("payment", "payment_gateway_calls_total", { call: "authorise", outcome: "voided" });
