import { afterEach, expect, test } from "bun:test";
import { eventually } from "../../services/kit/testing.ts";
import { listenForHints, openHintSender } from "./hint.ts";

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

async function listen() {
  const heardAtMs: number[] = [];
  const receiver = await listenForHints({
    host: "127.0.0.1",
    port: 0,
    onHint: () => heardAtMs.push(performance.now()),
  });
  const hints = openHintSender("order", [{ host: "127.0.0.1", port: receiver.port }]);
  closing.push(receiver.close, hints.close);
  return { hints, heardAtMs };
}

test("hints that are not urgent share a datagram, which is sent a little later", async () => {
  const { hints, heardAtMs } = await listen();
  const startedMs = performance.now();
  for (let sent = 0; sent < 5; sent++) {
    hints.sendLater();
    await Bun.sleep(2);
  }
  await eventually(() => expect(heardAtMs).toHaveLength(1));
  expect((heardAtMs[0] ?? 0) - startedMs).toBeGreaterThan(40);
  // The next one does the same.
  hints.sendLater();
  await eventually(() => expect(heardAtMs).toHaveLength(2));
});

test("an urgent hint is sent at once, together with those that wait", async () => {
  const { hints, heardAtMs } = await listen();
  hints.sendLater();
  hints.send();
  hints.sendLater();
  await eventually(() => expect(heardAtMs).toHaveLength(1));
  // If the earlier hints still waited, this one would be sent sooner.
  const againMs = performance.now();
  hints.sendLater();
  await eventually(() => expect(heardAtMs).toHaveLength(2));
  expect((heardAtMs[1] ?? 0) - againMs).toBeGreaterThan(40);
});
