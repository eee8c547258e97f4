/**
 * The kinds of faults. Each strikes at a moment at which something is under way, and brings witnesses that it was: what
 * was seen of it from outside. A fault without a witness has shown nothing.
 */
import { toRecord } from "../../proto/envelope.ts";
import { eventRegistry, sagaTopic } from "../../proto/event-table.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { lockNameOf } from "../../relay/outbox/ownership.ts";
import { inboxTableName, outboxTableName } from "../../relay/tables.ts";
import { sleep } from "../../services/kit/backoff.ts";
import { schemaName } from "../../services/stack/services.ts";
import type { Random } from "../model/random.ts";
import type { GatewayFault } from "./faulty-gateway.ts";
import type { TcpProxy } from "./proxy.ts";
import {
  type ChaosStack,
  type Client,
  type Consumer,
  clients,
  consumers,
  isFrozen,
  type LinkName,
  orderDeadlineMs,
  type ProcessName,
  servers,
} from "./stack.ts";

export interface FaultContext {
  readonly stack: ChaosStack;
  readonly random: Random;
}

/** What shows that a fault hit something under way; or what is missing for that; or why this machine does not allow it. */
export type Outcome =
  | { readonly kind: "hit"; readonly witnesses: readonly string[] }
  | { readonly kind: "missed"; readonly why: string }
  | { readonly kind: "skipped"; readonly why: string };

export interface FaultKind {
  readonly name: string;
  /** What it can hit. */
  readonly targets: readonly string[];
  /** Does harm and mends it again. @throws Error when something does not come back. */
  strike(context: FaultContext, target: string): Promise<Outcome>;
}

const databaseLinks = clients.map((client): LinkName => `${client} → mariadb`);
const links: readonly LinkName[] = [
  ...databaseLinks,
  ...clients.map((client): LinkName => `${client} → kafka`),
  "payment → gateway",
];

/** A member of a consumer group is missed after 6 s, an owner of an outbox after 5. */
const longerThanSessionsMs = 7_500;
const serverFrozenMs = 4_000;
const latencyMs = 4_000;
const resetsCount = 3;
const resetEveryMs = 400;
const lostMs = 7_000;
const refusedMs = 4_000;
const gatewayFaultMinMs = 2_000;
const gatewayCallsMin = 3;
const diskFullForMs = 3_000;
const duplicatesMin = 500;
const claimsMax = 40;
const pollMs = 50;
const requestsMax = 20;

const missed = (why: string): Outcome => ({ kind: "missed", why });

/** The way on which something of the process's should be under way when it is hit. */
function linkOf(name: ProcessName, random: Random): LinkName {
  switch (name) {
    case "payment":
      return random.chance(50) ? "payment → gateway" : "payment → mariadb";
    case "order":
    case "inventory":
      return `${name} → mariadb`;
    case "relay":
      return random.chance(50) ? "relay → kafka" : "relay → mariadb";
    case "gateway":
      return "payment → gateway";
    case "mariadb":
      return random.pick(databaseLinks);
    case "kafka":
      return "relay → kafka";
  }
}

/** Strikes in the middle of a request on `link`, and tells how many were unanswered then. */
async function midRequest(link: TcpProxy, random: Random, strike: () => void): Promise<number> {
  let unanswered = 0;
  await link.atRequest(1 + random.below(requestsMax), () => {
    strike();
    unanswered = link.unanswered();
  });
  return unanswered;
}

async function countNotFinal({ sources }: ChaosStack): Promise<number> {
  const [row] = await sources.databases.order.query<{ n: number }>(
    "SELECT COUNT(*) AS n FROM orders WHERE status NOT IN ('COMPLETED', 'FAILED')",
  );
  return Number(row?.n ?? 0);
}

/** Waits until some order is under way. */
async function untilBusy(stack: ChaosStack): Promise<number> {
  let notFinal = 0;
  await until(async () => {
    notFinal = await countNotFinal(stack);
    return notFinal > 0;
  }, 15_000);
  return notFinal;
}

/** False where it did not come to be in time. */
async function until(holds: () => Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    if (await holds()) return true;
    if (performance.now() > deadlineMs) return false;
    await sleep(pollMs);
  }
}

/** A hit, unless one of the figures that must not be 0 is 0. */
function witnessed(figures: readonly (readonly [number, string])[], ...more: readonly string[]): Outcome {
  const absent = figures.find(([count]) => count === 0);
  if (absent !== undefined) return missed(`0 ${absent[1]}`);
  return { kind: "hit", witnesses: [...figures.map(([count, what]) => `${count} ${what}`), ...more] };
}

async function endProcess({ stack, random }: FaultContext, name: ProcessName, signal: "SIGKILL" | "SIGTERM") {
  const notFinal = await untilBusy(stack);
  const link = stack.link(linkOf(name, random));
  const pid = stack.pidOf(name);
  const unanswered = await midRequest(link, random, () => stack.signal(name, signal));
  if (unanswered === 0) return missed(`nothing unanswered on ${link.name}`);
  const newPid = await stack.untilRestarted(name, pid);
  return witnessed(
    [
      [unanswered, `unanswered on ${link.name}`],
      [notFinal, "orders not final"],
    ],
    `PID ${pid} is now ${newPid}`,
  );
}

const kill: FaultKind = {
  name: "kill -9",
  targets: [...clients, ...servers],
  strike: (context, target) => endProcess(context, target as ProcessName, "SIGKILL"),
};

const brokerRestart: FaultKind = {
  name: "broker restart",
  targets: ["kafka"],
  strike: (context) => endProcess(context, "kafka", "SIGTERM"),
};

const databaseRestart: FaultKind = {
  name: "database restart",
  targets: ["mariadb"],
  strike: (context) => endProcess(context, "mariadb", "SIGTERM"),
};

const freeze: FaultKind = {
  name: "SIGSTOP, SIGCONT",
  targets: [...clients, ...servers],
  async strike({ stack, random }, target) {
    const name = target as ProcessName;
    const notFinal = await untilBusy(stack);
    const link = stack.link(linkOf(name, random));
    const pid = stack.pidOf(name);
    const unanswered = await midRequest(link, random, () => stack.signal(name, "SIGSTOP"));
    if (unanswered === 0) return missed(`nothing unanswered on ${link.name}`);
    const more: string[] = [];
    try {
      await sleep((servers as readonly string[]).includes(name) ? serverFrozenMs : longerThanSessionsMs);
      if (!(await isFrozen(pid))) return missed("it was not frozen to the end");
      if (name === "relay" && !(await isOwned(stack))) more.push("the database took its outbox away");
    } finally {
      stack.signal(name, "SIGCONT");
    }
    return witnessed(
      [
        [unanswered, `unanswered on ${link.name} while frozen`],
        [notFinal, "orders not final"],
      ],
      ...more,
    );
  },
};

/** Whether somebody holds the lock of Order's outbox. */
async function isOwned({ sources }: ChaosStack): Promise<boolean> {
  const name = lockNameOf(schemaName("order"), outboxTableName("order"));
  const [row] = await sources.databases.order.query<{ owner: number | null }>("SELECT IS_USED_LOCK(?) AS owner", [
    name,
  ]);
  return row?.owner !== null;
}

/**
 * Payment is stopped when the COMMIT of its claim leaves it: the intent is there, and the gateway has not been called.
 * Meanwhile the order passes its deadline and is given up, and a second instance voids what nobody has authorised; then
 * the first one goes on with its call.
 */
const frozenIntent: FaultKind = {
  name: "payment frozen before its call",
  targets: ["payment"],
  async strike({ stack }) {
    const pid = stack.pidOf("payment");
    const voidedBefore = await voidedCalls(stack);
    let held: readonly string[] = [];
    for (let attempt = 0; held.length === 0 && attempt < claimsMax; attempt++) {
      if (!(await atClaim(stack, () => stack.signal("payment", "SIGSTOP")))) return missed("payment claims nothing");
      held = await uncalledIntents(stack);
      if (held.length === 0) stack.signal("payment", "SIGCONT");
    }
    if (held.length === 0) return missed(`${claimsMax} claims held no first call, or came with an open transaction`);
    const hold = async (condition: string) => {
      const rows = await stack.sources.databases.order.query(
        `SELECT order_id FROM orders WHERE order_id IN (?) AND ${condition}`,
        [held],
      );
      return rows.length === held.length;
    };
    try {
      if (!(await until(() => hold("failure_reason IN ('TIMED_OUT', 'CANCELLED')"), 3 * orderDeadlineMs))) {
        return missed("its orders were not given up");
      }
      await stack.startSecond("payment");
      if (!(await until(() => hold("status = 'FAILED'"), 3 * orderDeadlineMs))) {
        return missed("its orders were given up, and not undone by the second instance");
      }
      if (!(await isFrozen(pid))) return missed("it was not frozen to the end");
      stack.signal("payment", "SIGCONT");
      await until(async () => (await voidedCalls(stack)) > voidedBefore, 5_000);
    } finally {
      stack.signal("payment", "SIGCONT");
      await stack.stopSecond("payment");
    }
    const late = (await voidedCalls(stack)) - voidedBefore;
    return witnessed(
      [[held.length, "intents committed and not called; given up and undone while it was frozen"]],
      late > 0 ? `${late} calls came after the void and were refused` : "its calls were dropped when it went on",
    );
  },
};

/** Runs `strike` when Payment commits that it has claimed calls. False where it did not within 15 s. */
async function atClaim(stack: ChaosStack, strike: () => void): Promise<boolean> {
  const claiming = new WeakSet<object>();
  const struck = new AbortController();
  const forget = stack.link("payment → mariadb").onRequest((bytes, connection) => {
    if (struck.signal.aborted) return;
    if (bytes.includes("attempts = attempts + 1")) claiming.add(connection);
    if (!claiming.has(connection) || !bytes.includes("COMMIT")) return;
    strike();
    struck.abort();
  });
  await sleep(15_000, struck.signal);
  forget();
  return struck.signal.aborted;
}

/**
 * Orders whose first authorisation is claimed, and of which the gateway knows nothing. None where Payment was stopped in
 * another transaction as well: its locks would keep a second instance from those rows for as long.
 */
async function uncalledIntents(stack: ChaosStack): Promise<readonly string[]> {
  // The COMMIT is on its way to the server still.
  await sleep(200);
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

const voidedCalls = (stack: ChaosStack) =>
  stack.metric("payment", "payment_gateway_calls_total", { call: "authorise", outcome: "voided" });

const latency: FaultKind = {
  name: "TCP latency",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.link(target as LinkName);
    const notFinal = await untilBusy(stack);
    const before = link.traffic().delayedChunks;
    const delayMs = 100 + random.below(300);
    link.slowDown(delayMs);
    await sleep(latencyMs);
    link.heal();
    const delayed = link.traffic().delayedChunks - before;
    return witnessed([
      [delayed, `chunks came ${delayMs} ms later`],
      [notFinal, "orders not final"],
    ]);
  },
};

const reset: FaultKind = {
  name: "TCP reset",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.link(target as LinkName);
    const notFinal = await untilBusy(stack);
    let connections = 0;
    let unanswered = 0;
    for (let count = 0; count < resetsCount; count++) {
      await link.atRequest(1 + random.below(requestsMax), () => {
        const hit = link.reset();
        connections += hit.connections;
        unanswered += hit.unanswered;
      });
      await sleep(resetEveryMs);
    }
    return witnessed(
      [
        [unanswered, "connections cut before the answer"],
        [notFinal, "orders not final"],
      ],
      `${connections} cut in all`,
    );
  },
};

const halfOpen: FaultKind = {
  name: "TCP half-open",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.link(target as LinkName);
    const notFinal = await untilBusy(stack);
    const before = link.traffic();
    let unanswered = 0;
    await link.atRequest(1 + random.below(requestsMax), () => {
      unanswered = link.swallow().unanswered;
    });
    await sleep(lostMs);
    const after = link.traffic();
    link.heal();
    return witnessed(
      [
        [unanswered, "unanswered when nothing got through any more"],
        [after.swallowedBytes - before.swallowedBytes, "bytes swallowed"],
        [notFinal, "orders not final"],
      ],
      `${after.connectedInVain - before.connectedInVain} new connections in vain`,
    );
  },
};

const refused: FaultKind = {
  name: "TCP refused",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.link(target as LinkName);
    const client = target.split(" ")[0] as Client;
    const notFinal = await untilBusy(stack);
    const logSize = stack.logSize(client);
    let unanswered = 0;
    await link.atRequest(1 + random.below(requestsMax), () => {
      unanswered = link.refuse().unanswered;
    });
    await sleep(refusedMs);
    await link.accept();
    const complaints = stack.logSince(client, logSize).match(/ECONNREFUSED|ECONNRESET|Connection (error|lost)|closed/g);
    return witnessed(
      [
        [unanswered, "connections cut before the answer"],
        [notFinal, "orders not final"],
      ],
      `${complaints?.length ?? 0} complaints in its log`,
    );
  },
};

const duplicates = (stack: ChaosStack, service: Consumer) =>
  stack.metric(service, "inbox_events_total", { outcome: "duplicate" });

const producedAgain: FaultKind = {
  name: "records produced again",
  targets: consumers,
  async strike({ stack }, target) {
    const publisher = target as Consumer;
    const notFinal = await untilBusy(stack);
    const before = await duplicates(stack, "order");
    const rows = await stack.sources.databases[publisher].query<{
      id: string;
      aggregate_id: string;
      type: string;
      payload: string;
      headers: string | null;
      occurred_at: Date;
      seq: number | string;
    }>(
      `SELECT id, aggregate_id, type, payload, headers, occurred_at, event.seq FROM ${outboxTableName(publisher)} AS event
        WHERE status = 'PUBLISHED' ORDER BY event.seq DESC LIMIT 200`,
    );
    const producer = await openProducer({ ...stack.kafka, timeoutMs: 5_000 });
    const encoding = { ceSource: `/shop/${publisher}`, encoding: "protobuf", registry: eventRegistry } as const;
    await producer.send(
      sagaTopic,
      rows.map((row) =>
        toRecord(
          {
            id: row.id,
            aggregateId: row.aggregate_id,
            type: row.type,
            payload: row.payload,
            headers: row.headers,
            occurredAt: row.occurred_at,
            seq: String(row.seq),
          },
          encoding,
        ),
      ),
    );
    await producer.close();
    // Order records every event of the topic.
    const dropped = async () => (await duplicates(stack, "order")) - before;
    if (!(await until(async () => (await dropped()) >= rows.length, 20_000)))
      return missed("order dropped too few of them");
    return witnessed([
      [rows.length, "events of its again, newest first"],
      [await dropped(), "duplicates dropped by order"],
      [notFinal, "orders not final"],
    ]);
  },
};

const offsetsBack: FaultKind = {
  name: "offsets set back",
  targets: consumers,
  async strike({ stack, random }, target) {
    const service = target as Consumer;
    const notFinal = await untilBusy(stack);
    const before = await duplicates(stack, service);
    const link = stack.link(`${service} → mariadb`);
    const unanswered = await midRequest(link, random, () => stack.signal(service, "SIGSTOP"));
    if (unanswered === 0) return missed(`nothing unanswered on ${link.name}`);
    let isSet: boolean;
    try {
      // A group with members cannot be set back: frozen for longer than its session, the only one is gone.
      isSet = await until(async () => {
        try {
          await stack.admin.resetOffsets(service, sagaTopic);
          return true;
        } catch {
          return false;
        }
      }, 20_000);
    } finally {
      stack.signal(service, "SIGCONT");
    }
    const [inbox] = await stack.sources.databases[service].query<{ n: number }>(
      `SELECT COUNT(*) AS n FROM ${inboxTableName(service)}`,
    );
    // More than a member that was merely frozen gets again; the whole topic may take a while.
    const wanted = Math.min(Number(inbox?.n), duplicatesMin);
    const dropped = async () => (await duplicates(stack, service)) - before;
    if (!isSet) return missed("the group kept its members");
    if (!(await until(async () => (await dropped()) >= wanted, 30_000))) return missed("too little came again");
    return witnessed([
      [await dropped(), "duplicates dropped so far"],
      [notFinal, "orders not final"],
    ]);
  },
};

const rebalance: FaultKind = {
  name: "rebalance in mid-batch",
  targets: consumers,
  async strike({ stack, random }, target) {
    const service = target as Consumer;
    const second = `${service}-2`;
    const notFinal = await untilBusy(stack);
    await stack.startSecond(service);
    const handled = () => stack.metric(second, "inbox_events_total", { outcome: "handled" });
    let count = 0;
    const took = await until(async () => {
      count = await handled();
      return count > 0;
    }, 30_000);
    let leaving: Promise<void> | undefined;
    const link = stack.link(`${service} → mariadb`);
    const unanswered = await midRequest(link, random, () => {
      leaving = stack.stopSecond(service);
    });
    await (leaving ?? stack.stopSecond(service));
    if (!took) return missed(`${second} was given nothing to do`);
    return witnessed([
      [count, `events handled by ${second} before it left`],
      [unanswered, `unanswered on ${link.name} when it left`],
      [notFinal, "orders not final"],
    ]);
  },
};

function gatewayTrouble(fault: GatewayFault, name: string): FaultKind {
  return {
    name,
    targets: ["gateway"],
    async strike({ stack }) {
      const { faultyGateway, gatewayPorts } = stack;
      const link = stack.link("payment → gateway");
      const notFinal = await untilBusy(stack);
      const affectedBefore = faultyGateway.affected();
      const unknown = () => stack.metric("payment", "payment_gateway_calls_total", { outcome: "unknown" });
      const unknownBefore = await unknown();
      link.retarget(gatewayPorts.faulty);
      faultyGateway.suffer(fault);
      await sleep(gatewayFaultMinMs);
      await until(async () => faultyGateway.affected() - affectedBefore >= gatewayCallsMin, 15_000);
      link.retarget(gatewayPorts.real);
      faultyGateway.suffer(undefined);
      return witnessed(
        [
          [faultyGateway.affected() - affectedBefore, "calls hit"],
          [notFinal, "orders not final"],
        ],
        `${(await unknown()) - unknownBefore} outcomes unknown to payment`,
      );
    },
  };
}

const diskFull: FaultKind = {
  name: "database's disk full",
  targets: ["mariadb"],
  async strike({ stack }) {
    const { disk } = stack;
    if (typeof disk === "string") return { kind: "skipped", why: disk };
    const notFinal = await untilBusy(stack);
    const pid = stack.pidOf("mariadb");
    const sizes = clients.map((name) => [name, stack.logSize(name)] as const);
    const complaints = () =>
      sizes.reduce(
        (sum, [name, size]) =>
          sum + (stack.logSince(name, size).match(/The table '[^']*' is full|No space left|Disk full/g)?.length ?? 0),
        0,
      );
    stack.mayDie("mariadb", true);
    try {
      await disk.fill();
      await until(async () => complaints() > 0, 60_000);
      await sleep(diskFullForMs);
    } finally {
      await disk.free();
    }
    await stack.untilReady();
    stack.mayDie("mariadb", false);
    const survived = stack.pidOf("mariadb") === pid ? "it went on by itself" : "it ended and was started again";
    return witnessed(
      [
        [complaints(), "statements refused for want of room"],
        [notFinal, "orders not final"],
      ],
      survived,
    );
  },
};

export const faultKinds: readonly FaultKind[] = [
  kill,
  freeze,
  frozenIntent,
  latency,
  reset,
  halfOpen,
  refused,
  brokerRestart,
  databaseRestart,
  producedAgain,
  offsetsBack,
  rebalance,
  gatewayTrouble("5xx", "gateway 5xx"),
  gatewayTrouble("timeout", "gateway timeouts"),
  gatewayTrouble("slow", "gateway slow"),
  gatewayTrouble("throttled", "gateway throttled"),
  diskFull,
];
