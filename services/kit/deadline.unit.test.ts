import { expect, test } from "bun:test";
import { type AddressInfo, connect, createServer } from "node:net";
import { endsWithin, withDeadline } from "./deadline.ts";

const late = () => new Error("too late");

test("work that ends before its deadline resolves or rejects as it would without one", async () => {
  expect(await withDeadline(Promise.resolve(1), 60_000, late)).toBe(1);
  expect(withDeadline(Promise.reject(new Error("broken")), 60_000, late)).rejects.toThrow("broken");
});

test("work that misses its deadline rejects with the caller's error, and its own later failure is dropped", async () => {
  const work = Promise.withResolvers<number>();
  await expect(withDeadline(work.promise, 1, late)).rejects.toThrow("too late");
  work.reject(new Error("broken afterwards"));
  // An unhandled rejection would fail this test.
  await new Promise((resolve) => setImmediate(resolve));
});

test("a limited wait returns whether the work ended in time, and throws what the work throws", async () => {
  expect(await endsWithin(Promise.resolve(), 60_000)).toBe(true);
  expect(await endsWithin(new Promise(() => undefined), 1)).toBe(false);
  expect(endsWithin(Promise.reject(new Error("broken")), 60_000)).rejects.toThrow("broken");
});

test("what has arrived by the deadline is in time, even if the process was too busy to look at it before", async () => {
  const sent = Promise.withResolvers<void>();
  const server = createServer((socket) => socket.write("answer", () => sent.resolve()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  await sent.promise;
  const answer = new Promise<string>((resolve) => socket.once("data", (data) => resolve(data.toString())));
  const inTime = withDeadline(answer, 20, late);
  const busyUntilMs = performance.now() + 60;
  while (performance.now() < busyUntilMs);
  expect(await inTime).toBe("answer");
  socket.destroy();
  server.close();
});
