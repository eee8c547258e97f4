import { readFile } from "node:fs/promises";

/** A process and the CPU time that it has used since its start. */
export interface ProcessTime {
  readonly pid: number;
  readonly seconds: number;
}

/** USER_HZ: the unit of the times in /proc, on every architecture. */
const ticksPerSecond = 100;

/** Reads the CPU time of processes by name. Leaves out processes that no longer run. */
export async function readProcessTimes(
  processes: Readonly<Record<string, number>>,
): Promise<ReadonlyMap<string, ProcessTime>> {
  const times = await Promise.all(
    Object.entries(processes).map(async ([name, pid]) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
      return stat === undefined ? [] : [[name, { pid, seconds: cpuSecondsOf(stat) }] as const];
    }),
  );
  return new Map(times.flat());
}

/** User and system time from the content of `/proc/<pid>/stat`: its 14th and 15th fields. */
export function cpuSecondsOf(stat: string): number {
  // The command's name is in parentheses and may contain spaces. The third field comes after it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** CPU seconds between two readings. A process that was started in between counts from its start. */
export function cpuSecondsBetween(
  before: ReadonlyMap<string, ProcessTime>,
  after: ReadonlyMap<string, ProcessTime>,
): Readonly<Record<string, number>> {
  const seconds: Record<string, number> = {};
  for (const [name, { pid, seconds: now }] of after) {
    const earlier = before.get(name);
    seconds[name] = earlier?.pid === pid ? now - earlier.seconds : now;
  }
  return seconds;
}

/** CPU seconds that the whole machine has been busy since its start: neither idle nor waiting for a disk. */
export async function readMachineBusySeconds(): Promise<number> {
  return machineBusySecondsOf(await readFile("/proc/stat", "utf8"));
}

/**
 * Busy time from the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. Stolen time counts as
 * busy, since it is not available to us.
 */
export function machineBusySecondsOf(stat: string): number {
  const fields = (stat.split("\n")[0] ?? "").trim().split(/\s+/).slice(1, 9).map(Number);
  const idle = (fields[3] ?? 0) + (fields[4] ?? 0);
  return (fields.reduce((sum, ticks) => sum + ticks, 0) - idle) / ticksPerSecond;
}
