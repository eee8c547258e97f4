/** What a relay with nothing to send costs. */
import { sleep } from "../../services/kit/backoff.ts";
import { openDatabase } from "../../services/kit/database.ts";
import { readProcessTimes } from "../k6/cpu.ts";
import type { BenchOutbox } from "./outbox.ts";
import { startRelayProcess } from "./relay-process.ts";

/** A new process still compiles its code, so it is left alone for this many times the measurement before it. */
const settleFactor = 3;

/** Measures queries by the server's counter, and CPU time by the kernel's. */
export async function measureIdle(
  outbox: BenchOutbox,
  { seconds, noteMemory }: { readonly seconds: number; readonly noteMemory: (megabytes: number) => void },
): Promise<{ readonly idleQueriesPerSecond: number; readonly idleCpuPercent: number }> {
  const relay = await startRelayProcess(outbox);
  // One connection, so that reading the counter adds one query and no connection set-up.
  const database = openDatabase({ url: outbox.relayUrl, connectionsMax: 1 });
  const read = async () => {
    const [row] = await database.query<{ Value: string }>("SHOW GLOBAL STATUS LIKE 'Questions'");
    const cpuSeconds = (await readProcessTimes({ relay: relay.pid })).get("relay")?.seconds ?? Number.NaN;
    return { questions: Number(row?.Value), cpuSeconds, atMs: performance.now() };
  };
  try {
    await sleep(settleFactor * seconds * 1_000);
    const before = await read();
    await sleep(seconds * 1_000);
    const after = await read();
    const elapsedSeconds = (after.atMs - before.atMs) / 1_000;
    noteMemory(await relay.memoryMaxMegabytes());
    return {
      // The second reading counts itself.
      idleQueriesPerSecond: (after.questions - before.questions - 1) / elapsedSeconds,
      idleCpuPercent: ((after.cpuSeconds - before.cpuSeconds) / elapsedSeconds) * 100,
    };
  } finally {
    await Promise.all([relay.stop(), database.close()]);
  }
}
