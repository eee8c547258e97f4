import { expect, test } from "bun:test";
import { controllerOf, coordinatorPartition } from "./cluster.ts";

test("the active controller is the broker with the highest epoch in the logs", () => {
  const line = (id: number, epoch: number) =>
    `2026-11-25T14:19:42.108Z [quorum] INFO x - [QuorumController id=${id}] Becoming the active controller at epoch ${epoch}, next write offset 1.`;
  expect(controllerOf([`${line(1, 2)}\nother\n${line(1, 9)}`, line(2, 10), "", line(3, 4)])).toEqual({
    id: 2,
    epoch: 10,
  });
  expect(controllerOf(["nothing yet"])).toBeUndefined();
});

test("a group's coordinator is found by Java's hash of its name", () => {
  // "payment".hashCode() is -786681338 in Java.
  expect(coordinatorPartition("payment")).toBe((-786_681_338 & 0x7fff_ffff) % 3);
});
