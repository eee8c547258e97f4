/** Connections that are slow, reset, dead or refused. */
import { sleep } from "../../../services/kit/backoff.ts";
import { type Client, type LinkName, links } from "../topology.ts";
import { atSomeRequest, type FaultKind, untilBusy, witnessed } from "./fault.ts";

const latencyMs = 4_000;
const delayMinMs = 100;
const delayRangeMs = 300;
const resetsCount = 3;
const resetIntervalMs = 400;
const halfOpenMs = 7_000;
const refusedMs = 4_000;

export const latency: FaultKind = {
  name: "TCP latency",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.links.get(target as LinkName);
    const notFinal = await untilBusy(stack);
    const before = link.traffic().delayedChunks;
    const delayMs = delayMinMs + random.below(delayRangeMs);
    link.slowDown(delayMs);
    await sleep(latencyMs);
    link.heal();
    const delayed = link.traffic().delayedChunks - before;
    return witnessed([
      [delayed, `chunks delayed by ${delayMs} ms`],
      [notFinal, "orders not final"],
    ]);
  },
};

export const reset: FaultKind = {
  name: "TCP reset",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.links.get(target as LinkName);
    const notFinal = await untilBusy(stack);
    let connections = 0;
    let unanswered = 0;
    for (let count = 0; count < resetsCount; count++) {
      await atSomeRequest(link, random, () => {
        const hit = link.reset();
        connections += hit.connections;
        unanswered += hit.unanswered;
      });
      await sleep(resetIntervalMs);
    }
    return witnessed(
      [
        [unanswered, "connections cut before the answer"],
        [notFinal, "orders not final"],
      ],
      `${connections} connections cut in all`,
    );
  },
};

export const halfOpen: FaultKind = {
  name: "TCP half-open",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.links.get(target as LinkName);
    const notFinal = await untilBusy(stack);
    const before = link.traffic();
    let unanswered = 0;
    await atSomeRequest(link, random, () => {
      unanswered = link.swallow().unanswered;
    });
    await sleep(halfOpenMs);
    const after = link.traffic();
    link.heal();
    return witnessed(
      [
        [unanswered, "connections unanswered when the link went dead"],
        [after.swallowedBytes - before.swallowedBytes, "bytes swallowed"],
        [notFinal, "orders not final"],
      ],
      `${after.deadConnects - before.deadConnects} new connections to the dead link`,
    );
  },
};

export const refused: FaultKind = {
  name: "TCP refused",
  targets: links,
  async strike({ stack, random }, target) {
    const link = stack.links.get(target as LinkName);
    const client = target.split(" ")[0] as Client;
    const notFinal = await untilBusy(stack);
    const logSize = stack.processes.logSize(client);
    let unanswered = 0;
    await atSomeRequest(link, random, () => {
      unanswered = link.refuse().unanswered;
    });
    await sleep(refusedMs);
    await link.accept();
    const log = stack.processes.logSince(client, logSize);
    const complaints = log.match(/ECONNREFUSED|ECONNRESET|Connection (error|lost)|closed/g);
    return witnessed(
      [
        [unanswered, "connections cut before the answer"],
        [notFinal, "orders not final"],
      ],
      `${complaints?.length ?? 0} connection errors in the log of ${client}`,
    );
  },
};
