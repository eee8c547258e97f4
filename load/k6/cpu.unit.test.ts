import { expect, test } from "bun:test";
import { cpuSecondsBetween, cpuSecondsOf, machineBusySecondsOf, readProcessTimes } from "./cpu.ts";

test("a process's CPU time is read although its name contains spaces and parentheses", () => {
  const rest = "S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
  expect(cpuSecondsOf(`42 (a (b) c) ${rest}`)).toBe(3);
});

test("a restarted process counts from its start, and a process that no longer runs is left out", () => {
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

test("the CPU time of this process is read, and a process that does not exist is left out", async () => {
  const times = await readProcessTimes({ self: process.pid, gone: 2 ** 30 });
  expect([...times.keys()]).toEqual(["self"]);
  expect(times.get("self")?.seconds).toBeGreaterThan(0);
});

test("the machine is busy if it is neither idle nor waiting for a disk, and guest time is not counted twice", () => {
  expect(machineBusySecondsOf("cpu  100 10 50 9000 500 5 15 20 40 0\ncpu0 1 2 3\n")).toBe(2);
});
