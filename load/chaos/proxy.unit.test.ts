/** Each fault of the proxy, as seen by its client and its server. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { eventually } from "../../services/kit/testing.ts";
import { TcpProxy } from "./proxy.ts";

const host = "127.0.0.1";
let server: Server;
let accepted: Socket[];
let received: string;
let isAnswering: boolean;
let proxy: TcpProxy;
let clients: Socket[];

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, host);
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}

async function connected(): Promise<Socket> {
  const client = connect(proxy.port, host);
  clients.push(client);
  await once(client, "connect");
  return client;
}

/** Sends `text` and returns the answer. */
async function ask(client: Socket, text: string): Promise<string> {
  client.write(text);
  const [answer] = await once(client, "data");
  return String(answer);
}

beforeEach(async () => {
  accepted = [];
  clients = [];
  received = "";
  isAnswering = true;
  server = createServer((socket) => {
    accepted.push(socket);
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      received += data;
      if (isAnswering) socket.write(`re: ${data}`);
    });
  }).listen(0, host);
  await once(server, "listening");
  const { port: targetPort } = server.address() as AddressInfo;
  proxy = await TcpProxy.open({ name: "test", host, port: await freePort(), targetPort });
});

afterEach(() => {
  proxy.close();
  for (const socket of [...clients, ...accepted]) socket.destroy();
  server.close();
});

test("the proxy passes on requests, answers and the end of a connection", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  expect(proxy.unanswered()).toBe(0);
  client.end();
  await eventually(() => expect(accepted[0]?.destroyed).toBe(true));
});

test("a fault strikes after a request has left the client and before it reaches the server", async () => {
  const client = await connected();
  client.on("error", () => undefined);
  let hit = { connections: 0, unanswered: 0 };
  const struck = proxy.atRequest(2, () => {
    hit = proxy.reset();
  });
  expect(await ask(client, "one")).toBe("re: one");
  client.write("two");
  expect(await struck).toBe(true);
  expect(hit).toEqual({ connections: 1, unanswered: 1 });
  expect(received).toBe("one");
});

test("atRequest returns false if no request comes", async () => {
  expect(await proxy.atRequest(1, () => undefined, 20)).toBe(false);
});

test("with latency, chunks arrive late and in order, and the end comes last", async () => {
  const client = await connected();
  proxy.slowDown(50);
  client.write("one ");
  await eventually(() => expect(proxy.traffic().delayedChunks).toBe(1));
  expect(received).toBe("");
  proxy.heal();
  client.write("two");
  client.end();
  await eventually(() => expect(received).toBe("one two"));
});

test("a reset reaches both sides at once", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  const failed = once(client, "error");
  proxy.reset();
  expect(await failed).toMatchObject([{ code: "ECONNRESET" }]);
  await eventually(() => expect(accepted[0]?.destroyed).toBe(true));
});

test("on a half-open link sockets stay open and nothing gets through; connections that lost data are reset when it heals", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  proxy.swallow();
  client.write("two");
  const late = await connected();
  late.write("three");
  await eventually(() => expect(proxy.traffic()).toMatchObject({ swallowedBytes: 8, deadConnects: 1 }));
  expect(received).toBe("one");
  expect([client.destroyed, late.destroyed, accepted[0]?.destroyed]).toEqual([false, false, false]);
  for (const socket of [client, late]) socket.on("error", () => undefined);
  proxy.heal();
  await eventually(() =>
    expect([client.destroyed, late.destroyed, accepted[0]?.destroyed]).toEqual([true, true, true]),
  );
  expect(await ask(await connected(), "four")).toBe("re: four");
});

test("on a half-open link the server learns that a client has left only when the link heals", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  proxy.swallow();
  client.destroy();
  await once(client, "close");
  expect(accepted[0]?.destroyed).toBe(false);
  proxy.heal();
  await eventually(() => expect(accepted[0]?.destroyed).toBe(true));
});

test("a refusing proxy resets its connections and accepts no others until it listens again", async () => {
  isAnswering = false;
  const client = await connected();
  client.on("error", () => undefined);
  client.write("one");
  await eventually(() => expect(proxy.unanswered()).toBe(1));
  expect(proxy.refuse()).toEqual({ connections: 1, unanswered: 1 });
  await expect(connected()).rejects.toMatchObject({ code: "ECONNREFUSED" });
  await proxy.accept();
  isAnswering = true;
  expect(await ask(await connected(), "two")).toBe("re: two");
});
