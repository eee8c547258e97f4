/** Connections that are slow, reset, dead or refused. */
import { sleep } from "../../../services/kit/backoff.ts";
import { type LinkName, links } from "../topology.ts";
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
    const notFinal = await untilBusy(stack);
    const { proxy } = await stack.links.pick(target as LinkName, random);
    const before = proxy.traffic().delayedChunks;
    const delayMs = delayMinMs + random.below(delayRangeMs);
    proxy.slowDown(delayMs);
    await sleep(latencyMs);
    proxy.heal();
    const delayed = proxy.traffic().delayedChunks - before;
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
    const notFinal = await untilBusy(stack);
    const { proxy } = await stack.links.pick(target as LinkName, random);
    let connections = 0;
    let unanswered = 0;
    for (let count = 0; count < resetsCount; count++) {
      await atSomeRequest(proxy, random, () => {
        const hit = proxy.reset();
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
    const notFinal = await untilBusy(stack);
    const { proxy } = await stack.links.pick(target as LinkName, random);
    const before = proxy.traffic();
    let unanswered = 0;
    await atSomeRequest(proxy, random, () => {
      unanswered = proxy.swallow().unanswered;
    });
    await sleep(halfOpenMs);
    const after = proxy.traffic();
    proxy.heal();
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
    const notFinal = await untilBusy(stack);
    const { proxy, client } = await stack.links.pick(target as LinkName, random);
    const logSize = stack.processes.logSize(client);
    let unanswered = 0;
    await atSomeRequest(proxy, random, () => {
      unanswered = proxy.refuse().unanswered;
    });
    await sleep(refusedMs);
    await proxy.accept();
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
