/** Processes that are killed, restarted or frozen. */
import { lockNameOf } from "../../../relay/outbox/source-lock.ts";
import { outboxTableName } from "../../../relay/tables.ts";
import { sleep } from "../../../services/kit/backoff.ts";
import { schemaName } from "../../../services/stack/services.ts";
import type { Random } from "../../model/random.ts";
import type { Link } from "../links.ts";
import { isFrozen } from "../processes.ts";
import type { ChaosStack } from "../stack.ts";
import {
  databaseLinks,
  type LinkName,
  type ProcessName,
  type Role,
  roles,
  type ServerKind,
  serverKinds,
} from "../topology.ts";
import { type FaultContext, type FaultKind, midRequest, missed, untilBusy, witnessed } from "./fault.ts";

/** A group member's session ends after 6 s of silence, and an outbox owner's lock after 5 s. */
const longerThanSessionsMs = 7_500;
const serverFrozenMs = 4_000;

/** What runs as several processes is hit in a busy one of them. */
type Target = Role | ServerKind;
const targets: readonly Target[] = [...roles, ...serverKinds];

export const kill: FaultKind = {
  name: "kill -9",
  targets,
  strike: (context, target) => endProcess(context, target as Target, "SIGKILL"),
};

export const brokerRestart: FaultKind = {
  name: "broker restart",
  targets: ["kafka"],
  strike: (context) => endProcess(context, "kafka", "SIGTERM"),
};

export const databaseRestart: FaultKind = {
  name: "database restart",
  targets: ["mariadb"],
  strike: (context) => endProcess(context, "mariadb", "SIGTERM"),
};

export const freeze: FaultKind = {
  name: "SIGSTOP, SIGCONT",
  targets,
  async strike({ stack, random }, target) {
    const notFinal = await untilBusy(stack);
    const link = await stack.links.pick(linkToWatch(target as Target, random), random);
    const name = hitProcess(link, target as Target);
    const pid = stack.processes.pidOf(name);
    const unanswered = await midRequest(link.proxy, random, () => stack.processes.signal(name, "SIGSTOP"));
    if (unanswered === 0) return missed(`nothing unanswered on ${link.name}`);
    const notes: string[] = [];
    try {
      await sleep(name === link.server ? serverFrozenMs : longerThanSessionsMs);
      if (!(await isFrozen(pid))) return missed("the process did not stay frozen");
      if (target === "relay" && !(await isOrderOutboxOwned(stack))) notes.push("it lost the ownership of its outboxes");
    } finally {
      stack.processes.signal(name, "SIGCONT");
    }
    return witnessed(
      [
        [unanswered, `unanswered on ${link.name} while frozen`],
        [notFinal, "orders not final"],
      ],
      ...notes,
    );
  },
};

async function endProcess({ stack, random }: FaultContext, target: Target, signal: "SIGKILL" | "SIGTERM") {
  const notFinal = await untilBusy(stack);
  const link = await stack.links.pick(linkToWatch(target, random), random);
  const name = hitProcess(link, target);
  const pid = stack.processes.pidOf(name);
  const unanswered = await midRequest(link.proxy, random, () => stack.processes.signal(name, signal));
  if (unanswered === 0) return missed(`nothing unanswered on ${link.name}`);
  const newPid = await stack.processes.untilRestarted(name, pid);
  return witnessed(
    [
      [unanswered, `unanswered on ${link.name}`],
      [notFinal, "orders not final"],
    ],
    `${name}'s PID ${pid} is now ${newPid}`,
  );
}

/** The process at one of the link's ends. */
function hitProcess({ client, server }: Link, target: Target): ProcessName {
  return (serverKinds as readonly string[]).includes(target) ? server : client;
}

/** The link of the process on which a request must be in flight when the fault strikes. */
function linkToWatch(target: Target, random: Random): LinkName {
  switch (target) {
    case "payment":
      return random.chance(50) ? "payment → gateway" : "payment → mariadb";
    case "relay":
      return random.chance(50) ? "relay → kafka" : "relay → mariadb";
    case "gateway":
      return "payment → gateway";
    case "mariadb":
      return random.pick(databaseLinks);
    case "kafka":
      return "relay → kafka";
    default:
      return `${target} → mariadb`;
  }
}

/** Whether any process holds the lock of Order's outbox. */
async function isOrderOutboxOwned({ sources }: ChaosStack): Promise<boolean> {
  const name = lockNameOf(schemaName("order"), outboxTableName("order"));
  const [row] = await sources.databases.order.query<{ owner: number | null }>("SELECT IS_USED_LOCK(?) AS owner", [
    name,
  ]);
  return row?.owner !== null;
}
