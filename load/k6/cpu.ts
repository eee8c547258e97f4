import { readFile } from "node:fs/promises";

/** A process and the CPU time that it has used since it began. */
export interface ProcessTime {
  readonly pid: number;
  readonly seconds: number;
}

/** The kernel counts /proc's times in these, on every architecture (USER_HZ). */
const ticksPerSecond = 100;

/** Reads the CPU time of processes by name. One that is gone is left out. */
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

/** User and system time in the content of `/proc/<pid>/stat`: its 14th and 15th field. */
export function cpuSecondsOf(stat: string): number {
  // The command's name, in parentheses, may hold spaces: what follows begins with the third field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** CPU seconds between two readings; a process that was started in between counts from its start. */
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

/** CPU seconds that the whole machine has been busy since it was started: whatever is neither idle nor waiting for a disk. */
export async function readMachineBusySeconds(): Promise<number> {
  return machineBusySecondsOf(await readFile("/proc/stat", "utf8"));
}

/** The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. Steal was taken from us: busy. */
export function machineBusySecondsOf(stat: string): number {
  const fields = (stat.split("\n")[0] ?? "").trim().split(/\s+/).slice(1, 9).map(Number);
  const idle = (fields[3] ?? 0) + (fields[4] ?? 0);
  return (fields.reduce((sum, ticks) => sum + ticks, 0) - idle) / ticksPerSecond;
}
