import { expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { silentLogger } from "../../services/kit/log.ts";
import { eventually } from "../../services/kit/testing.ts";
import { openProducer } from "./producer.ts";

test("a producer fails in time and closes its sockets if the broker accepts connections but never answers", async () => {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    sockets.add(socket);
    // Reads requests and never answers.
    socket.resume();
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("The server has no port.");
    const brokers = [{ host: "127.0.0.1", port: address.port }];
    await expect(openProducer({ brokers, clientId: "test", log: silentLogger, timeoutMs: 500 })).rejects.toThrow(
      "Connecting to the broker took longer than 500 ms",
    );
    expect(connections).toBeGreaterThan(0);
    await eventually(() => expect(sockets.size).toBe(0));
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});
