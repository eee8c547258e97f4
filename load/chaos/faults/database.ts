/** The database's disk runs full. */
import { sleep } from "../../../services/kit/backoff.ts";
import { roles } from "../topology.ts";
import { type FaultKind, until, untilBusy, witnessed } from "./fault.ts";

const refusalTimeoutMs = 60_000;
const diskFullForMs = 3_000;

export const diskFull: FaultKind = {
  name: "database's disk full",
  targets: ["mariadb"],
  async strike({ stack }) {
    const { disk, processes } = stack;
    if (typeof disk === "string") return { kind: "skipped", why: disk };
    const notFinal = await untilBusy(stack);
    const pid = processes.pidOf("mariadb");
    const clients = roles.flatMap((role) => stack.links.clientsOf(role));
    const logSizes = clients.map((name) => [name, processes.logSize(name)] as const);
    const refusals = () =>
      logSizes
        .map(([name, size]) => processes.logSince(name, size))
        .reduce((sum, log) => sum + (log.match(/The table '[^']*' is full|No space left|Disk full/g)?.length ?? 0), 0);
    await processes.exits.tolerating("mariadb", async () => {
      try {
        await disk.fill();
        await until(async () => refusals() > 0, refusalTimeoutMs);
        await sleep(diskFullForMs);
      } finally {
        await disk.free();
      }
      await processes.untilReady();
    });
    return witnessed(
      [
        [refusals(), "statements refused because the disk was full"],
        [notFinal, "orders not final"],
      ],
      processes.pidOf("mariadb") === pid ? "the database kept running" : "the database exited and was restarted",
    );
  },
};
