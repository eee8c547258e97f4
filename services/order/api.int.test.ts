/** Order's API as main.ts opens it, on a real database and over the wire: quiet orders, and watchers that all come at once. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { type ClientReadableStream, credentials, Client as GrpcClient } from "@grpc/grpc-js";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { OrderService, type WatchOrderResponse } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import type { Database } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { type RpcServer, serveRpc } from "../kit/server.ts";
import { createServiceSchema, eventually, readCounters, type TestSchema } from "../kit/testing.ts";
import { type OrderApi, openOrderApi } from "./api.ts";
import { seedPrices } from "./seed.ts";

let schema: TestSchema;
let database: Database;
let api: OrderApi;
let server: RpcServer;
const metrics = new Metrics();
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
  await seedPrices(schema.url);
  api = openOrderApi({
    databaseUrl: schema.url,
    outbox: createOutbox({ service: "order", registry: eventRegistry }),
    hints: { send: () => undefined },
    sagaMetrics: { recordPlaced: () => undefined, recordFacts: () => undefined },
    deadlineMs: 300_000,
    newId: () => Bun.randomUUIDv7(),
    log: silentLogger,
    metrics,
  });
  server = await serveRpc({ host: "127.0.0.1", httpPort: 0, grpcPort: 0, routes: api.routes, log: silentLogger });
  await eventually(() => expect(api.arePricesLoaded()).toBe(true));
});
afterAll(async () => {
  api.stop();
  await server.close();
  await api.close();
  await schema.drop();
});

const connect = (): Client<typeof OrderService> =>
  createClient(OrderService, createConnectTransport({ baseUrl: `http://127.0.0.1:${server.httpPort}` }));
const grpcWeb = (): Client<typeof OrderService> =>
  createClient(OrderService, createGrpcWebTransport({ baseUrl: `http://127.0.0.1:${server.httpPort}` }));

/** A client with a connection of its own. */
const openGrpc = () =>
  new GrpcClient(`127.0.0.1:${server.grpcPort}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });

function watchByGrpc(
  client: GrpcClient,
  orderId: string,
  afterVersion: number,
): ClientReadableStream<WatchOrderResponse> {
  const { input, output } = OrderService.method.watchOrder;
  return client.makeServerStreamRequest(
    "/shop.order.v1.OrderService/WatchOrder",
    (message) => Buffer.from(toBinary(input, message)),
    (bytes) => fromBinary(output, bytes),
    create(input, { orderId, afterVersion }),
  );
}

const request = () => ({
  requestId: crypto.randomUUID(),
  lines: [{ sku: "sku-0001", quantity: 1 }],
  paymentMethod: "pm_ok",
});
const place = async () => (await connect().placeOrder(request())).orderId;
const move = (orderId: string, version: number) =>
  database.execute("UPDATE orders SET status = 'STOCK_RESERVED', version = ? WHERE order_id = ?", [version, orderId]);
/** A message in a few words. */
const shown = ({ event }: WatchOrderResponse) =>
  event.case === "order" ? `version ${event.value.version}` : (event.case ?? "nothing");
const watchers = async () => {
  const text = await metrics.metrics();
  return Number(/^order_watchers (\d+)$/m.exec(text)?.[1]);
};

describe("a watch that resumes at the current version of a quiet order", () => {
  type Watch = (orderId: string, afterVersion: number, signal: AbortSignal) => AsyncIterable<WatchOrderResponse>;
  /** The tests by their titles: each opens a watch over another protocol. */
  const tests: Record<string, Watch> = {
    "gets a heartbeat at once and then the next version over Connect": (orderId, afterVersion, signal) =>
      connect().watchOrder({ orderId, afterVersion }, { signal }),
    "gets a heartbeat at once and then the next version over gRPC-Web": (orderId, afterVersion, signal) =>
      grpcWeb().watchOrder({ orderId, afterVersion }, { signal }),
    "gets a heartbeat at once and then the next version over gRPC": (orderId, afterVersion, signal) => {
      const client = openGrpc();
      signal.addEventListener("abort", () => client.close());
      const stream = watchByGrpc(client, orderId, afterVersion);
      signal.addEventListener("abort", () => stream.on("error", () => undefined).cancel());
      return stream;
    },
  };

  for (const [title, watch] of Object.entries(tests)) {
    test(title, async () => {
      const orderId = await place();
      const leaving = new AbortController();
      const updates = watch(orderId, 1, leaving.signal)[Symbol.asyncIterator]();
      const first = await updates.next();
      expect(first.done ? "end" : shown(first.value)).toBe("heartbeat");
      await move(orderId, 2);
      api.watch.mayHaveChanged([orderId]);
      const second = await updates.next();
      expect(second.done ? "end" : shown(second.value)).toBe("version 2");
      leaving.abort();
      await eventually(async () => expect(await watchers()).toBe(0));
    });
  }
});

/** Inserts orders that are PENDING for ever and returns their ids. */
async function insertOrders(count: number): Promise<readonly string[]> {
  const orderIds = Array.from({ length: count }, () => Bun.randomUUIDv7());
  const rows = orderIds.map((id) => [id, "crowd", crypto.randomUUID(), "PENDING", 1, "[]", "EUR", 0, "pm_ok"]);
  await database.execute(
    `INSERT INTO orders (order_id, owner, request_id, status, version, lines_json, currency_code, total_minor, payment_method)
     VALUES ?`,
    [rows],
  );
  return orderIds;
}

/** Counts from now on how often a connection of PlaceOrder's pool is taken. */
function countAcquired(): { readonly count: number } {
  const { placements } = api.databases;
  const before = placements.usage().acquired;
  return {
    get count() {
      return placements.usage().acquired - before;
    },
  };
}

/** Resolves to the stream's first message, in a few words, or to its error. */
const firstOf = (stream: ClientReadableStream<WatchOrderResponse>) =>
  new Promise<string>((resolve) => {
    stream.on("data", (message) => resolve(shown(message)));
    stream.on("error", (error) => resolve(error.message));
  });

/** Opens a watch, again after UNAVAILABLE as a client should, until its first message. Returns the stream and the message. */
async function keepWatching(client: GrpcClient, orderId: string) {
  for (;;) {
    const stream = watchByGrpc(client, orderId, 1);
    const first = await firstOf(stream);
    if (!first.includes("UNAVAILABLE")) return { stream, first };
  }
}

describe("many callers at once", () => {
  test("5,000 watchers that come at once are read in few statements, and take no connection from PlaceOrder", async () => {
    const watchersCount = 5_000;
    const orderIds = await insertOrders(watchersCount);
    const clients = Array.from({ length: 50 }, openGrpc);
    const acquired = countAcquired();
    const before = await readCounters("Com_select");
    const begun = Promise.all(
      orderIds.map((orderId, index) => keepWatching(clients[index % 50] as GrpcClient, orderId)),
    );
    const placements = 20;
    for (let count = 0; count < placements; count++) await place();
    const watches = await begun;
    expect(new Set(watches.map(({ first }) => first))).toEqual(new Set(["heartbeat"]));
    expect(await watchers()).toBe(watchersCount);
    const after = await readCounters("Com_select");
    const selects = (after.get("Com_select") ?? 0) - (before.get("Com_select") ?? 0);
    expect(selects).toBeLessThan(watchersCount / 10);
    // Each placement was alone in its transaction.
    expect(acquired.count).toBe(placements);
    for (const client of clients) client.close();
    for (const { stream } of watches) stream.cancel();
    await eventually(async () => expect(await watchers()).toBe(0));
  });

  test("a watcher whose order cannot be read in time gets UNAVAILABLE and leaves at once, while the read still hangs", async () => {
    const orderId = await place();
    const locking = schema.open(1);
    await locking.query("LOCK TABLES orders WRITE");
    try {
      const client = openGrpc();
      const failures = await Promise.all([
        connect().watchOrder({ orderId })[Symbol.asyncIterator]().next().catch(ConnectError.from),
        firstOf(watchByGrpc(client, orderId, 0)),
      ]);
      expect(failures).toEqual([
        expect.objectContaining({ code: Code.Unavailable }),
        expect.stringContaining("UNAVAILABLE"),
      ]);
      await eventually(async () => expect(await watchers()).toBe(0), 1_000);
      client.close();
    } finally {
      await locking.query("UNLOCK TABLES");
    }
  });

  test("thousands of GetOrder calls at once are all answered, and take no connection from PlaceOrder", async () => {
    const orderIds = await insertOrders(3_000);
    const clients = Array.from({ length: 30 }, openGrpc);
    const { input, output } = OrderService.method.getOrder;
    const get = (client: GrpcClient, orderId: string) =>
      new Promise<string | undefined>((resolve) => {
        client.makeUnaryRequest(
          "/shop.order.v1.OrderService/GetOrder",
          (message) => Buffer.from(toBinary(input, message)),
          (bytes) => fromBinary(output, bytes),
          create(input, { orderId }),
          (error, response) => resolve(response?.order?.orderId ?? error?.message),
        );
      });
    const acquired = countAcquired();
    const got = await Promise.all(orderIds.map((id, index) => get(clients[index % 30] as GrpcClient, id)));
    expect(got).toEqual([...orderIds]);
    expect(acquired.count).toBe(0);
    for (const client of clients) client.close();
  });

  test("cancels that wait for locked orders hold up neither PlaceOrder nor GetOrder", async () => {
    const orderIds = await insertOrders(10);
    const { commands } = api.databases;
    const cancels = await schema.open(1).transaction(async (locking) => {
      await locking.query("SELECT order_id FROM orders WHERE order_id IN (?) FOR UPDATE", [orderIds]);
      const { waited } = commands.usage();
      const cancelling = orderIds.map((orderId) => connect().cancelOrder({ orderId }).catch(ConnectError.from));
      await eventually(() => expect(commands.usage().waited).toBeGreaterThan(waited));
      const orderId = await place();
      await connect().getOrder({ orderId });
      return cancelling;
    });
    await Promise.all(cancels);
  });
});
