/** Brokers of a cluster that are killed, frozen or restarted in the roles that matter, and partitions that refuse records. */
import { sagaTopic } from "../../../proto/event-table.ts";
import type { PartitionReplicas } from "../../../relay/kafka/admin.ts";
import { sleep } from "../../../services/kit/backoff.ts";
import { serviceNames } from "../../../services/stack/services.ts";
import { ask, brokerName, controllerOf, coordinatorPartition, offsetsTopic, untilInSync } from "../cluster.ts";
import { isFrozen } from "../processes.ts";
import type { ChaosStack } from "../stack.ts";
import {
  type FaultContext,
  type FaultKind,
  midRequest,
  missed,
  type Outcome,
  until,
  untilBusy,
  witnessed,
} from "./fault.ts";

/** Longer than a broker's session, a group member's session and a send. */
const frozenMs = 8_000;
const failoverTimeoutMs = 20_000;
const sampleMs = 1_000;
const moveTimeoutMs = 40_000;

/** A task of one broker that another must take over. */
interface Duty {
  /** For the witness: "leads partition 7". */
  readonly what: string;
  /** The id of the broker that has it; undefined while none is known. @param away a broker not to ask. */
  holder(away?: number): Promise<number | undefined>;
}

export const leaderKilled = struck("partition leader killed", [sagaTopic], "SIGKILL", busyPartition);
export const leaderFrozen = struck("partition leader frozen", [sagaTopic], "SIGSTOP", busyPartition);
export const controllerKilled = struck("controller killed", ["controller"], "SIGKILL", activeController);
export const controllerFrozen = struck("controller frozen", ["controller"], "SIGSTOP", activeController);
export const coordinatorKilled = struck("group coordinator killed", serviceNames, "SIGKILL", groupCoordinator);
export const coordinatorFrozen = struck("group coordinator frozen", serviceNames, "SIGSTOP", groupCoordinator);

/** Strikes the broker that has a duty, while a send to it is in flight. Another one must take the duty over. */
function struck(
  name: string,
  targets: readonly string[],
  signal: "SIGKILL" | "SIGSTOP",
  findDuty: (context: FaultContext, target: string) => Promise<Duty>,
): FaultKind {
  return {
    name,
    targets,
    async strike(context, target) {
      const { stack } = context;
      const notFinal = await untilBusy(stack);
      const duty = await findDuty(context, target);
      const id = await duty.holder();
      if (id === undefined) return missed(`no broker ${duty.what}`);
      const broker = brokerName(id);
      const pid = stack.processes.pidOf(broker);
      const unanswered = await strikeMidSend(context, id, signal);
      if (unanswered === 0) return missed(`no request to ${broker}`);
      const struckMs = performance.now();
      let successor: number | undefined;
      const takenOver = async () => {
        successor = await duty.holder(id).catch(() => undefined);
        return successor !== undefined && successor !== id;
      };
      const isTakenOver = await until(takenOver, failoverTimeoutMs);
      const failoverMs = Math.round(performance.now() - struckMs);
      const after = await whileAway(context, id, pid, signal, struckMs);
      if (after !== undefined) return after;
      if (!isTakenOver) throw new Error(`no other broker ${duty.what} within ${failoverTimeoutMs / 1_000} s`);
      return witnessed(
        [
          [unanswered, `unanswered between the relays and ${broker}`],
          [notFinal, "orders not final"],
        ],
        `broker ${successor} ${duty.what} ${failoverMs} ms later, instead of broker ${id}`,
      );
    },
  };
}

/** Signals a broker while a request to it is in flight. Returns how many it had not answered; 0 if no request came. */
async function strikeMidSend({ stack, random }: FaultContext, id: number, signal: NodeJS.Signals): Promise<number> {
  const broker = brokerName(id);
  const relays = stack.links.clientsOf("relay").map((relay) => stack.links.get(relay, broker));
  const fallback = stack.links.clientsOf("order").map((order) => stack.links.get(order, broker));
  const [link] = await stack.links.busiest([...relays, ...fallback]);
  if (link === undefined) return 0;
  return midRequest(link.proxy, random, () => stack.processes.signal(broker, signal));
}

/** Waits until the struck broker is back, if it was killed; wakes it after a while, if it was frozen. */
async function whileAway(
  { stack }: FaultContext,
  id: number,
  pid: number,
  signal: "SIGKILL" | "SIGSTOP",
  struckMs: number,
): Promise<Outcome | undefined> {
  const broker = brokerName(id);
  if (signal === "SIGKILL") {
    await stack.processes.untilRestarted(broker, pid);
    return undefined;
  }
  try {
    await sleep(Math.max(0, struckMs + frozenMs - performance.now()));
    return (await isFrozen(pid)) ? undefined : missed("the broker did not stay frozen");
  } finally {
    stack.processes.signal(broker, "SIGCONT");
  }
}

async function busyPartition({ stack }: FaultContext): Promise<Duty> {
  const partition = await busiestPartition(stack);
  return { what: `leads partition ${partition}`, holder: (away) => leaderOf(stack, sagaTopic, partition, away) };
}

async function groupCoordinator({ stack }: FaultContext, group: string): Promise<Duty> {
  const partition = coordinatorPartition(group);
  return { what: `coordinates the group ${group}`, holder: (away) => leaderOf(stack, offsetsTopic, partition, away) };
}

async function activeController({ stack }: FaultContext): Promise<Duty> {
  const logs = () => stack.brokers.map((name) => stack.processes.logSince(name, 0));
  return { what: "is the active controller", holder: async () => controllerOf(logs())?.id };
}

async function leaderOf({ kafka }: ChaosStack, topic: string, partition: number, away?: number) {
  const brokers = kafka.brokers.filter((_, index) => index + 1 !== away);
  const replicas = await ask({ ...kafka, brokers }, (admin) => admin.listReplicas(topic));
  const leader = replicas.find((it) => it.partition === partition)?.leader ?? -1;
  return leader < 0 ? undefined : leader;
}

/** The partition of the saga's topic that gets the most records. */
async function busiestPartition({ admin }: ChaosStack): Promise<number> {
  const ends = async () => new Map((await admin.endOffsets(sagaTopic)).map((it) => [it.partition, Number(it.offset)]));
  const before = await ends();
  await sleep(sampleMs);
  const growth = [...(await ends())].map(([partition, end]) => ({
    partition,
    records: end - (before.get(partition) ?? 0),
  }));
  return growth.sort((left, right) => right.records - left.records)[0]?.partition ?? 0;
}

export const rollingRestart: FaultKind = {
  name: "rolling restart of all brokers",
  targets: ["kafka"],
  async strike(context) {
    const { stack } = context;
    const { processes } = stack;
    const notFinal = await untilBusy(stack);
    const unanswered: number[] = [];
    for (const [index, broker] of stack.brokers.entries()) {
      const pid = processes.pidOf(broker);
      const count = await strikeMidSend(context, index + 1, "SIGTERM");
      if (count === 0) return missed(`no request to ${broker}`);
      unanswered.push(count);
      await processes.untilRestarted(broker, pid);
      await untilInSync(stack.kafka, stack.brokers.length);
    }
    return witnessed(
      [
        ...unanswered.map((count, index) => [count, `unanswered by ${stack.brokers[index]}`] as const),
        [notFinal, "orders not final"],
      ],
      `${stack.brokers.length} brokers restarted, one after the other`,
    );
  },
};

const refusals = ({ processes, links }: ChaosStack) =>
  processes.metricOf(links.clientsOf("relay"), "relay_producer_errors_total", { kind: "not-ready" });

/** One partition is left with two copies, and the broker with the second one freezes. Every other partition has two left. */
export const belowInsyncMin: FaultKind = {
  name: "partition below min.insync.replicas",
  targets: [sagaTopic],
  async strike({ stack, random }) {
    const { processes } = stack;
    const notFinal = await untilBusy(stack);
    const partition = await busiestPartition(stack);
    const found = await replicasOf(stack, partition);
    const other = random.pick(found.replicas.filter((id) => id !== found.leader));
    await moveReplicas(stack, partition, [found.leader, other]);
    const pid = processes.pidOf(brokerName(other));
    const refusedBefore = await refusals(stack);
    let refused = 0;
    let placed: number;
    let published: number;
    processes.signal(brokerName(other), "SIGSTOP");
    try {
      await until(async () => {
        refused = (await refusals(stack)) - refusedBefore;
        return refused > 0;
      }, failoverTimeoutMs);
      const [placedBefore, publishedBefore] = [await countOrders(stack), await countPublished(stack)];
      await sleep(frozenMs);
      placed = (await countOrders(stack)) - placedBefore;
      published = (await countPublished(stack)) - publishedBefore;
      if (!(await isFrozen(pid))) return missed("the broker did not stay frozen");
    } finally {
      processes.signal(brokerName(other), "SIGCONT");
      await moveReplicas(stack, partition, found.replicas);
    }
    if (refused > 0 && published === 0) throw new Error("the relay published no event of the other partitions");
    return witnessed([
      [refused, `sends to partition ${partition} refused`],
      [placed, "orders accepted meanwhile"],
      [published, "events of other partitions published meanwhile"],
      [notFinal, "orders not final"],
    ]);
  },
};

async function replicasOf({ kafka }: ChaosStack, partition: number): Promise<PartitionReplicas> {
  const all = await ask(kafka, (admin) => admin.listReplicas(sagaTopic));
  const found = all.find((it) => it.partition === partition);
  if (found === undefined) throw new Error(`There is no partition ${partition}.`);
  return found;
}

/** Resolves once these brokers, and no others, have the partition and are in sync. @throws Error if they are not in time. */
async function moveReplicas(stack: ChaosStack, partition: number, ids: readonly number[]): Promise<void> {
  const sorted = (list: readonly number[]) => list.toSorted().join();
  const isMoved = async () => {
    const { replicas, insync } = await replicasOf(stack, partition);
    if (sorted(replicas) !== sorted(ids)) {
      await ask(stack.kafka, (admin) => admin.moveReplicas(sagaTopic, partition, ids));
    }
    return sorted(replicas) === sorted(ids) && sorted(insync) === sorted(ids);
  };
  if (!(await until(() => isMoved().catch(() => false), moveTimeoutMs))) {
    throw new Error(`Partition ${partition} was not moved to the brokers ${ids.join(", ")}.`);
  }
}

export const twoBrokersFrozen: FaultKind = {
  name: "two brokers frozen",
  targets: ["kafka"],
  async strike({ stack, random }) {
    const { processes } = stack;
    const notFinal = await untilBusy(stack);
    const first = random.below(stack.brokers.length);
    const frozen = stack.brokers.filter((_, index) => index !== first);
    const pids = frozen.map((name) => processes.pidOf(name));
    for (const name of frozen) processes.signal(name, "SIGSTOP");
    let placed: number;
    let waiting: number;
    try {
      // What was on its way has arrived or failed by then.
      await sleep(frozenMs / 2);
      const before = await countOrders(stack);
      await sleep(frozenMs);
      placed = (await countOrders(stack)) - before;
      waiting = await countUnpublished(stack);
      for (const pid of pids) if (!(await isFrozen(pid))) return missed("a broker did not stay frozen");
    } finally {
      for (const name of frozen) processes.signal(name, "SIGCONT");
    }
    return witnessed(
      [
        [placed, "orders accepted without a quorum of brokers"],
        [waiting, "events waiting for the relay at the end"],
        [notFinal, "orders not final"],
      ],
      `${frozen.join(" and ")} frozen for ${(1.5 * frozenMs) / 1_000} s`,
    );
  },
};

async function countOrders({ sources }: ChaosStack): Promise<number> {
  const [row] = await sources.databases.order.query<{ n: number }>("SELECT COUNT(*) AS n FROM orders");
  return Number(row?.n ?? 0);
}

async function countUnpublished({ sources }: ChaosStack): Promise<number> {
  const [row] = await sources.databases.order.query<{ n: number }>(
    "SELECT COUNT(*) AS n FROM order_outbox_event WHERE status = 'PENDING'",
  );
  return Number(row?.n ?? 0);
}

async function countPublished({ sources }: ChaosStack): Promise<number> {
  const [row] = await sources.databases.order.query<{ n: number }>(
    "SELECT COUNT(*) AS n FROM order_outbox_event WHERE status = 'PUBLISHED'",
  );
  return Number(row?.n ?? 0);
}
