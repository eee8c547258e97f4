import { expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { silentLogger } from "../../services/kit/log.ts";
import { eventually } from "../../services/kit/testing.ts";
import { createTestTopic, distinct, readTopic, testKafka } from "../testing.ts";
import { openAdmin } from "./admin.ts";
import { openProducer } from "./producer.ts";

/** A server that accepts connections, reads requests and never answers. */
async function silentServer() {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    sockets.add(socket);
    socket.resume();
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server has no port.");
  return {
    broker: { host: "127.0.0.1", port: address.port },
    sockets,
    connections: () => connections,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

test("a producer connects and sends although the first broker is gone and the second one never answers", async () => {
  const silent = await silentServer();
  const topic = await createTestTopic(3);
  try {
    const brokers = [{ host: "127.0.0.1", port: 1 }, silent.broker, ...testKafka().brokers];
    const producer = await openProducer({ ...testKafka(), brokers, timeoutMs: 2_000 });
    await producer.send(topic, [{ key: "a", value: new Uint8Array(), headers: { ce_id: "1" } }]);
    expect(producer.partitionsOf(topic)).toBe(3);
    await producer.close();
    expect((await readTopic(topic, distinct(1))).length).toBe(1);
    expect(silent.connections()).toBe(1);
    // The connection that lost is closed.
    await eventually(() => expect(silent.sockets.size).toBe(0));
  } finally {
    silent.close();
    const admin = await openAdmin(testKafka());
    await admin.deleteTopics([topic]);
    await admin.close();
  }
});

test("a producer fails in time and closes its sockets if the broker accepts connections but never answers", async () => {
  const silent = await silentServer();
  try {
    const brokers = [silent.broker];
    await expect(openProducer({ brokers, clientId: "test", log: silentLogger, timeoutMs: 500 })).rejects.toThrow(
      "Connecting to the broker took longer than 500 ms",
    );
    expect(silent.connections()).toBeGreaterThan(0);
    await eventually(() => expect(silent.sockets.size).toBe(0));
  } finally {
    silent.close();
  }
});
