/** One of several instances that freezes for longer than its sessions, while the others take over its work. */
import { isFrozen } from "../processes.ts";
import type { ChaosStack } from "../stack.ts";
import { databaseLinks, type Role, roles } from "../topology.ts";
import { type FaultKind, midRequest, missed, until, untilBusy, witnessed } from "./fault.ts";

/** For sessions (6 s), an idle transaction (seconds) and the deadline of an order (10 s) to pass. */
const takeOverTimeoutMs = 45_000;
/** Orders are counted that were placed in this time after the freeze. */
const placedWithinMs = 5_000;

export const instanceFrozen: FaultKind = {
  name: "instance frozen past its session",
  targets: roles,
  async strike({ stack, random }, target) {
    const notFinal = await untilBusy(stack);
    const name = databaseLinks[roles.indexOf(target as Role)];
    if (name === undefined) return missed(`there is no path from ${target} to its database`);
    const { proxy, client } = await stack.links.pick(name, random);
    const pid = stack.processes.pidOf(client);
    const unanswered = await midRequest(proxy, random, () => stack.processes.signal(client, "SIGSTOP"));
    if (unanswered === 0) return missed(`nothing unanswered on ${proxy.name}`);
    const startedMs = performance.now();
    const frozenAt = await databaseTime(stack);
    let orders = { placed: 0, open: 0 };
    try {
      const isTakenOver = await until(async () => {
        orders = await ordersAfter(stack, frozenAt);
        return performance.now() - startedMs > placedWithinMs && orders.placed > 0 && orders.open === 0;
      }, takeOverTimeoutMs);
      if (!(await isFrozen(pid))) return missed("the process did not stay frozen");
      if (!isTakenOver) {
        const seconds = takeOverTimeoutMs / 1_000;
        throw new Error(`${orders.open} of ${orders.placed} orders waited for ${client} for more than ${seconds} s`);
      }
    } finally {
      stack.processes.signal(client, "SIGCONT");
    }
    return witnessed(
      [
        [unanswered, `unanswered on ${proxy.name} while frozen`],
        [orders.placed, "orders placed and finished without it"],
        [notFinal, "orders not final"],
      ],
      `${client} frozen for ${Math.round((performance.now() - startedMs) / 1_000)} s`,
    );
  },
};

async function databaseTime({ sources }: ChaosStack): Promise<string> {
  const [row] = await sources.databases.order.query<{ now: string }>(
    "SELECT DATE_FORMAT(CURRENT_TIMESTAMP(3), '%Y-%m-%d %H:%i:%s.%f') AS now",
  );
  return row?.now ?? "";
}

/** Orders placed soon after `since`, and how many of them are not final. */
async function ordersAfter({ sources }: ChaosStack, since: string) {
  const [row] = await sources.databases.order.query<{ placed: number; open: number }>(
    `SELECT COUNT(*) AS placed, COALESCE(SUM(status NOT IN ('COMPLETED', 'FAILED')), 0) AS open FROM orders
      WHERE created_at BETWEEN ? AND ? + INTERVAL ${placedWithinMs / 1_000} SECOND`,
    [since, since],
  );
  return { placed: Number(row?.placed ?? 0), open: Number(row?.open ?? 0) };
}
