/** Each fault of the proxy as the client and the server beside it see it. */
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

/** Sends, and resolves to the answer. */
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

test("it passes on what is said, and ends what is ended", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  expect(proxy.unanswered()).toBe(0);
  client.end();
  await eventually(() => expect(accepted[0]?.destroyed).toBe(true));
});

test("it strikes when a request has left the client and has not reached the server", async () => {
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

test("it says so when no request comes", async () => {
  expect(await proxy.atRequest(1, () => undefined, 20)).toBe(false);
});

test("latency: later, in order, and the end after all of it", async () => {
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

test("reset: both sides are told at once", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  const failed = once(client, "error");
  proxy.reset();
  expect(await failed).toMatchObject([{ code: "ECONNRESET" }]);
  await eventually(() => expect(accepted[0]?.destroyed).toBe(true));
});

test("half-open: sockets stay open, nothing gets through, and what lost something is reset in the end", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  proxy.swallow();
  client.write("two");
  const late = await connected();
  late.write("three");
  await eventually(() => expect(proxy.traffic()).toMatchObject({ swallowedBytes: 8, connectedInVain: 1 }));
  expect(received).toBe("one");
  expect([client.destroyed, late.destroyed, accepted[0]?.destroyed]).toEqual([false, false, false]);
  for (const socket of [client, late]) socket.on("error", () => undefined);
  proxy.heal();
  await eventually(() =>
    expect([client.destroyed, late.destroyed, accepted[0]?.destroyed]).toEqual([true, true, true]),
  );
  expect(await ask(await connected(), "four")).toBe("re: four");
});

test("half-open: the server does not hear that a client has gone, until it is over", async () => {
  const client = await connected();
  expect(await ask(client, "one")).toBe("re: one");
  proxy.swallow();
  client.destroy();
  await once(client, "close");
  expect(accepted[0]?.destroyed).toBe(false);
  proxy.heal();
  await eventually(() => expect(accepted[0]?.destroyed).toBe(true));
});

test("refused: nobody gets in until it listens again", async () => {
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
