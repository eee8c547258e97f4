import { expect, test } from "bun:test";
import { cpuSecondsBetween, cpuSecondsOf, machineBusySecondsOf, readProcessTimes } from "./cpu.ts";

test("the command's name may hold spaces and parentheses", () => {
  const rest = "S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
  expect(cpuSecondsOf(`42 (a (b) c) ${rest}`)).toBe(3);
});

test("a process that was restarted counts from its start, one that is gone is left out", () => {
  const before = new Map([
    ["order", { pid: 1, seconds: 10 }],
    ["relay", { pid: 2, seconds: 10 }],
    ["gateway", { pid: 3, seconds: 10 }],
  ]);
  const after = new Map([
    ["order", { pid: 1, seconds: 12 }],
    ["relay", { pid: 9, seconds: 1 }],
  ]);
  expect(cpuSecondsBetween(before, after)).toEqual({ order: 2, relay: 1 });
});

test("reads this process, and leaves out one that is not there", async () => {
  const times = await readProcessTimes({ self: process.pid, gone: 2 ** 30 });
  expect([...times.keys()]).toEqual(["self"]);
  expect(times.get("self")?.seconds).toBeGreaterThan(0);
});

test("the machine is busy when it is neither idle nor waiting for a disk; guests are counted as user already", () => {
  expect(machineBusySecondsOf("cpu  100 10 50 9000 500 5 15 20 40 0\ncpu0 1 2 3\n")).toBe(2);
});
