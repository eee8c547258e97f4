import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { connect, createServer } from "node:net";
import { create } from "@bufbuild/protobuf";
import { createConnection } from "mysql2/promise";
import { Registry } from "prom-client";
import { eventRegistry, type HandledBy } from "../../proto/event-table.ts";
import { StockReservedSchema } from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCancelRequestedSchema, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { handleBatch, receivedEvent } from "../../relay/testing.ts";
import { type Database, openDatabase } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { createServiceSchema, eventually, type TestSchema } from "../kit/testing.ts";
import { createGatewayClient } from "./gateway-client.ts";
import { paymentHandler } from "./handlers.ts";
import { type PaymentWorker, startPaymentWorker } from "./worker.ts";

/** A request that the gateway received. */
interface GatewayRequest {
  readonly path: string;
  readonly key: string;
  readonly orderId: string;
  readonly atMs: number;
  readonly body: Readonly<Record<string, string>>;
}
type Body = GatewayRequest["body"];
type Answer = (asked: Body) => Response | Promise<Response>;

const newId = () => Bun.randomUUIDv7();
const outbox = createOutbox({ service: "payment", registry: eventRegistry });
const callTimeoutMs = 300;
const never: Answer = () => new Promise<Response>(() => undefined);
const authorized: Answer = ({ orderId, amountMinor, currency }) =>
  Response.json({ authorizationId: `auth-${newId()}`, status: "AUTHORIZED", orderId, amountMinor, currency });
const voided =
  (voidedAmountMinor: string): Answer =>
  ({ orderId }) =>
    Response.json({ status: "VOIDED", orderId, voidedAmountMinor });
const status =
  (code: number, body: object = {}, headers: Record<string, string> = {}): Answer =>
  () =>
    Response.json(body, { status: code, headers });

let schema: TestSchema;
let database: Database;
/** The requests that the gateway received, in order. */
let requests: GatewayRequest[] = [];
/** The gateway's answers to an order's calls, one after the other. The last one is repeated. */
let script: Map<string, Answer[]>;
let callsNow = 0;
let callsMost = 0;
let gateway: ReturnType<typeof serveGateway>;
let workers: PaymentWorker[] = [];
let metrics: Registry;
let hinted = 0;

function serveGateway(port = 0) {
  return Bun.serve({
    hostname: "127.0.0.1",
    port,
    idleTimeout: 60,
    async fetch(request) {
      const body = (await request.json()) as Record<string, string>;
      const orderId = body.orderId ?? "";
      const path = new URL(request.url).pathname;
      requests.push({
        path,
        key: request.headers.get("idempotency-key") ?? "",
        orderId,
        atMs: performance.now(),
        body,
      });
      callsMost = Math.max(callsMost, ++callsNow);
      const answers = script.get(`${path} ${orderId}`) ?? script.get(orderId) ?? [authorized];
      const answer = (answers.length > 1 ? answers.shift() : answers[0]) ?? authorized;
      try {
        return await answer(body);
      } finally {
        callsNow--;
      }
    },
  });
}

beforeAll(async () => {
  schema = await createServiceSchema("payment");
  database = schema.open(8);
});
afterAll(async () => {
  await schema.drop();
});
beforeEach(async () => {
  for (const table of ["payment", "payment_outbox_event"]) await database.execute(`DELETE FROM ${table}`);
  requests = [];
  script = new Map();
  callsNow = 0;
  callsMost = 0;
  hinted = 0;
  metrics = new Registry();
  gateway = serveGateway();
});
afterEach(async () => {
  await Promise.all(workers.map((worker) => worker.close()));
  workers = [];
  await gateway.stop(true);
});

interface WorkerOptions {
  readonly callsMax?: number;
  readonly url?: string;
  readonly database?: Database;
  readonly metrics?: Registry;
}

function startWorker(options: WorkerOptions = {}) {
  const worker = startPaymentWorker({
    database: options.database ?? database,
    gatewayClient: createGatewayClient({ url: options.url ?? gateway.url.origin, timeoutMs: callTimeoutMs }),
    outbox,
    hints: { send: () => hinted++, sendLater: () => hinted++, close: () => undefined },
    newId,
    log: silentLogger,
    metrics: options.metrics ?? metrics,
    ...(options.callsMax === undefined ? {} : { callsMax: options.callsMax }),
  });
  workers.push(worker);
  return worker;
}

async function handle(...messages: readonly HandledBy<"payment">[]): Promise<readonly string[]> {
  const headers = { correlationId: "request-1", traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` };
  const events = messages.map((message) => receivedEvent(message, headers));
  // A stand-in without slots claims nothing, so that the test's workers have to find the due calls.
  const worker = { freeSlots: () => 0, start: () => undefined, wake: () => undefined };
  const handler = paymentHandler({ newId, worker });
  await database.transaction((transaction) => handleBatch(transaction, handler, outbox, events));
  return events.map(({ envelope }) => envelope.id);
}

const placed = (orderId: string) =>
  create(OrderPlacedSchema, { orderId, total: { currencyCode: "EUR", minorUnits: 1999n }, paymentMethod: "pm_ok" });
const stockReserved = (orderId: string) => create(StockReservedSchema, { orderId });
const cancelRequested = (orderId: string) => create(OrderCancelRequestedSchema, { orderId });
const reserve = (...orderIds: readonly string[]) =>
  handle(...orderIds.flatMap((orderId) => [placed(orderId), stockReserved(orderId)]));

async function rows() {
  return await database.query("SELECT * FROM payment ORDER BY order_id");
}

async function published() {
  const found = await database.query<{ aggregate_id: string; type: string; payload: string; headers: string }>(
    "SELECT aggregate_id, type, payload, headers FROM payment_outbox_event ORDER BY seq",
  );
  return found.map((row) => ({
    orderId: row.aggregate_id,
    type: row.type.split(".").at(-1),
    payload: JSON.parse(row.payload),
    headers: JSON.parse(row.headers),
  }));
}

async function metric(name: string, labels: Record<string, string>): Promise<number> {
  const found = (await metrics.getMetricsAsJSON()).find((it) => it.name === name);
  return (found?.values ?? [])
    .filter((value) => Object.entries(labels).every(([label, text]) => value.labels[label] === text))
    .reduce((sum, { value }) => sum + value, 0);
}

test("a worker that is woken authorises at once, and publishes in answer to the event that asked for it", async () => {
  const worker = startWorker();
  await eventually(async () => expect(await rows()).toEqual([]));
  const [, reservedId] = await reserve("order-1");
  const wokenMs = performance.now();
  worker.wake();
  await eventually(async () => expect(await published()).toHaveLength(1));
  expect(requests).toMatchObject([
    {
      path: "/v1/authorizations",
      key: "authorise-order-1",
      body: { orderId: "order-1", amountMinor: "1999", currency: "EUR", paymentMethod: "pm_ok" },
    },
  ]);
  // Too soon for the poll, which runs every 500 ms.
  expect((requests[0]?.atMs ?? 0) - wokenMs).toBeLessThan(250);
  const [event] = await published();
  expect(event).toMatchObject({
    type: "PaymentAuthorized",
    payload: { orderId: "order-1", amount: { currencyCode: "EUR", minorUnits: "1999" } },
    headers: { causationId: reservedId, correlationId: "request-1" },
  });
  expect(event?.headers.traceparent).toMatch(/^00-a{32}-/);
  const [row] = await rows();
  expect(row).toMatchObject({ status: "AUTHORIZED", cause: null, next_attempt_at: null });
  expect(row?.authorization_id).toBe(event?.payload.authorizationId);
  expect(hinted).toBe(1);
});

test("a worker finds due calls without being woken", async () => {
  startWorker();
  await reserve("order-1");
  await eventually(async () => expect(await published()).toHaveLength(1), 3_000);
});

test.each([
  ["402", 402],
  ["409, for an order that is voided,", 409],
])("an authorise answered with %s fails the payment and is not repeated", async (_, code) => {
  script.set("order-1", [status(code)]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect((await rows())[0]?.status).toBe("DECLINED"));
  expect(await published()).toMatchObject([{ type: "PaymentFailed", payload: { reason: "DECLINED" } }]);
  expect(requests).toHaveLength(1);
});

test("a call without a clear answer is repeated with the same key until its outcome is known", async () => {
  script.set("order-1", [never, status(503), status(500), authorized]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect(await published()).toHaveLength(1));
  expect(requests.map(({ key }) => key)).toEqual(Array(4).fill("authorise-order-1"));
  expect(await metric("payment_gateway_calls_total", { outcome: "unknown" })).toBe(3);
});

test("a worker waits for a gateway that refuses connections", async () => {
  const url = gateway.url.origin;
  const { port } = gateway;
  await gateway.stop(true);
  await reserve("order-1");
  startWorker({ url });
  await eventually(async () =>
    expect(await metric("payment_gateway_calls_total", { outcome: "unknown" })).toBeGreaterThan(1),
  );
  expect((await rows())[0]?.status).toBe("AUTHORIZING");
  gateway = serveGateway(port);
  await eventually(async () => expect((await rows())[0]?.status).toBe("AUTHORIZED"));
});

test("a call answered with 429 is repeated after Retry-After, not before", async () => {
  script.set("order-1", [status(429, {}, { "retry-after": "1" }), authorized]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect(await published()).toHaveLength(1));
  expect((requests[1]?.atMs ?? 0) - (requests[0]?.atMs ?? 0)).toBeGreaterThanOrEqual(990);
  expect(await metric("payment_gateway_calls_total", { outcome: "throttled" })).toBe(1);
});

test.each([
  ["400", status(400)],
  ["401", status(401)],
  ["404", status(404)],
  ["302", status(302, {}, { location: "/elsewhere" })],
  ["a 200 without an outcome", status(200)],
  ["a 200 without JSON", () => new Response("<html>")],
])("an authorise answered with %s is repeated and never counts as declined", async (_, answer) => {
  script.set("order-1", [answer, authorized]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect(await published()).toMatchObject([{ type: "PaymentAuthorized" }]));
  expect(requests.map(({ key }) => key)).toEqual(["authorise-order-1", "authorise-order-1"]);
  expect(await metric("payment_gateway_calls_total", { outcome: "fault" })).toBe(1);
});

test("an authorisation of another amount, order or currency is a fault and authorises nothing", async () => {
  const others = [{ amountMinor: "1998" }, { orderId: "order-2" }, { currency: "USD" }];
  script.set("order-1", [
    ...others.map(
      (other): Answer =>
        (asked) =>
          authorized({ ...asked, ...other }),
    ),
    ({ orderId }) => Response.json({ authorizationId: "auth-x", status: "AUTHORIZED", orderId }),
    authorized,
  ]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect(await published()).toMatchObject([{ type: "PaymentAuthorized" }]));
  expect(requests.map(({ key }) => key)).toEqual(Array(5).fill("authorise-order-1"));
  expect(await metric("payment_gateway_calls_total", { outcome: "fault" })).toBe(4);
});

test("a void of another order, or of a part of the amount, is a fault and voids nothing", async () => {
  script.set("/v1/voids order-1", [
    (asked) => voided("1999")({ ...asked, orderId: "order-2" }),
    voided("1998"),
    voided("1999"),
  ]);
  await reserve("order-1");
  const worker = startWorker();
  await eventually(async () => expect((await rows())[0]?.status).toBe("AUTHORIZED"));
  await handle(cancelRequested("order-1"));
  worker.wake();
  await eventually(async () => expect((await rows())[0]?.status).toBe("VOIDED"));
  expect(requests.filter(({ path }) => path === "/v1/voids")).toHaveLength(3);
  expect(await metric("payment_gateway_calls_total", { call: "void", outcome: "fault" })).toBe(2);
});

test("a payment in a status that this version does not know, and a damaged one, stop no other claim", async () => {
  const unknown = ["unknown-1", "unknown-2", "unknown-3"];
  await reserve(...unknown, "damaged-1");
  await database.execute("UPDATE payment SET status = 'REVIEWED' WHERE order_id LIKE 'unknown-%'");
  await database.execute("UPDATE payment SET cause = NULL WHERE order_id = 'damaged-1'");
  await database.execute("UPDATE payment SET next_attempt_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY");
  const before = await rows();
  // Fewer slots than payments that cannot be called.
  startWorker({ callsMax: 2 });
  await reserve("order-1", "order-2", "order-3");
  await eventually(async () => expect(await published()).toHaveLength(3));
  expect(requests.map(({ orderId }) => orderId).toSorted()).toEqual(["order-1", "order-2", "order-3"]);
  const unknownIn = (all: typeof before) => all.filter((row) => row.status === "REVIEWED");
  expect(unknownIn(await rows())).toEqual(unknownIn(before));
  expect(await metric("payment_gateway_calls_pending", { status: "UNKNOWN" })).toBe(3);
  expect(await metric("payment_unreadable_rows_total", { step: "claim" })).toBeGreaterThan(0);
  expect(await metric("payment_worker_failures_total", { step: "claim" })).toBe(0);
});

test("an outcome of a payment whose status this version does not know is skipped, and the others are recorded", async () => {
  const gate = Promise.withResolvers<void>();
  const orderIds = ["order-1", "order-2", "order-3"];
  for (const orderId of orderIds) script.set(orderId, [(asked) => gate.promise.then(() => authorized(asked))]);
  await reserve(...orderIds);
  startWorker();
  await eventually(() => expect(requests).toHaveLength(3));
  await database.execute("UPDATE payment SET status = 'REVIEWED' WHERE order_id = 'order-2'");
  gate.resolve();
  await eventually(async () => expect(await published()).toHaveLength(2));
  expect((await rows()).map((row) => row.status)).toEqual(["AUTHORIZED", "REVIEWED", "AUTHORIZED"]);
  expect(await metric("payment_unreadable_rows_total", { step: "record" })).toBe(1);
  expect(await metric("payment_worker_failures_total", { step: "record" })).toBe(0);
});

test("a void is repeated until it is confirmed, and its event carries the amount that it gave back", async () => {
  script.set("/v1/voids order-1", [status(402), status(409), status(401), status(404), status(500), voided("1999")]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect((await rows())[0]?.status).toBe("AUTHORIZED"));
  const [cancelId] = await handle(cancelRequested("order-1"));
  await eventually(async () => expect((await rows())[0]?.status).toBe("VOIDED"));
  expect(requests.filter(({ path }) => path === "/v1/voids").map(({ key }) => key)).toEqual(
    Array(6).fill("void-order-1"),
  );
  // 402 and 409 refuse the void. 401 and 404 are about credentials and the address, so they say nothing about the payment.
  expect(await metric("payment_gateway_calls_total", { call: "void", outcome: "void_refused" })).toBe(2);
  expect(await metric("payment_voids_refused_total", {})).toBe(1);
  expect((await rows())[0]).toMatchObject({ voided_minor: 1999, amount_minor: 1999, cause: null });
  expect((await published())[1]).toMatchObject({
    type: "PaymentVoided",
    payload: { amount: { currencyCode: "EUR", minorUnits: "1999" } },
    headers: { causationId: cancelId },
  });
});

test("a refused void makes the payment VOID_REFUSED, is counted, and is repeated until it is confirmed", async () => {
  let refuses = true;
  script.set("/v1/voids order-1", [(asked) => (refuses ? status(403) : voided("1999"))(asked)]);
  await reserve("order-1");
  startWorker();
  await eventually(async () => expect((await rows())[0]?.status).toBe("AUTHORIZED"));
  await handle(cancelRequested("order-1"));
  const voids = () => requests.filter(({ path }) => path === "/v1/voids");
  await eventually(() => expect(voids().length).toBeGreaterThan(2));
  expect((await rows())[0]).toMatchObject({ status: "VOID_REFUSED", refusal: "answered 403 to void" });
  expect(await metric("payment_gateway_calls_pending", { status: "VOID_REFUSED" })).toBe(1);
  expect(await metric("payment_gateway_calls_pending", { status: "VOIDING" })).toBe(0);
  expect((await published()).map(({ type }) => type)).toEqual(["PaymentAuthorized"]);
  refuses = false;
  await eventually(async () => expect((await rows())[0]).toMatchObject({ status: "VOIDED", refusal: null }), 15_000);
  expect(new Set(voids().map(({ key }) => key))).toEqual(new Set(["void-order-1"]));
  expect(await metric("payment_voids_refused_total", {})).toBe(1);
  expect(await metric("payment_gateway_calls_pending", { status: "VOID_REFUSED" })).toBe(0);
  expect((await published()).map(({ type }) => type)).toEqual(["PaymentAuthorized", "PaymentVoided"]);
});

test("an authorisation that arrives after the cancel is ignored and does not delay the void", async () => {
  const late = Promise.withResolvers<Response>();
  script.set("/v1/authorizations order-1", [() => late.promise]);
  script.set("/v1/voids order-1", [never, voided("1999")]);
  await reserve("order-1");
  const worker = startWorker();
  await eventually(() => expect(requests).toHaveLength(1));
  await handle(cancelRequested("order-1"));
  worker.wake();
  await eventually(() => expect(requests).toHaveLength(2));
  late.resolve(await authorized(requests[0]?.body ?? {}));
  await eventually(async () => expect((await rows())[0]?.status).toBe("VOIDED"));
  expect(await published()).toMatchObject([{ type: "PaymentVoided" }]);
  expect(await metric("payment_gateway_calls_total", { outcome: "authorized" })).toBe(1);
});

test("an authorise that is throttled after the cancel does not delay the void, which another instance makes", async () => {
  const late = Promise.withResolvers<Response>();
  script.set("/v1/authorizations order-1", [() => late.promise]);
  script.set("/v1/voids order-1", [voided("0")]);
  await reserve("order-1");
  startWorker();
  await eventually(() => expect(requests).toHaveLength(1));
  await handle(cancelRequested("order-1"));
  late.resolve(await status(429, {}, { "retry-after": "60" })({}));
  await eventually(async () => expect(await metric("payment_gateway_calls_total", { outcome: "throttled" })).toBe(1));
  startWorker({ metrics: new Registry() });
  await eventually(async () => expect((await rows())[0]?.status).toBe("VOIDED"));
});

test("a 429 pauses all calls of this process until Retry-After has passed", async () => {
  const throttled = ["first-1", "first-2"];
  for (const orderId of throttled) script.set(orderId, [status(429, {}, { "retry-after": "2" }), authorized]);
  await reserve(...throttled);
  const worker = startWorker();
  await eventually(async () => expect(await metric("payment_gateway_calls_total", { outcome: "throttled" })).toBe(2));
  const throttledMs = performance.now();
  expect(worker.freeSlots()).toBe(0);
  expect(await metric("payment_gateway_pause_seconds", {})).toBeGreaterThan(1);
  await reserve("order-1", "order-2");
  worker.wake();
  await eventually(async () => expect(await published()).toHaveLength(4));
  const later = requests.slice(2);
  expect(later.length).toBeGreaterThanOrEqual(4);
  expect(Math.min(...later.map(({ atMs }) => atMs)) - throttledMs).toBeGreaterThan(1_700);
});

test("a worker makes as many calls side by side as it has slots, and reuses a slot as soon as it is free", async () => {
  const orderIds = Array.from({ length: 200 }, (_, index) => `order-${index}`);
  // Calls of different lengths, so that the slots become free one by one.
  for (const [index, orderId] of orderIds.entries()) {
    script.set(orderId, [(asked) => Bun.sleep(10 + (index % 16) * 5).then(() => authorized(asked))]);
  }
  await reserve(...orderIds);
  const startedMs = performance.now();
  startWorker({ callsMax: 16 });
  await eventually(async () => expect(await published()).toHaveLength(200));
  // Takes about a second. If free slots waited for the poll, it would take 6 s.
  expect(performance.now() - startedMs).toBeLessThan(4_000);
  expect(callsMost).toBe(16);
  expect(requests).toHaveLength(200);
  expect(new Set(requests.map(({ key }) => key)).size).toBe(200);
});

test("outcomes that arrive while others are being recorded are recorded together", async () => {
  const orderIds = Array.from({ length: 200 }, (_, index) => `order-${index}`);
  for (const orderId of orderIds) script.set(orderId, [(asked) => Bun.sleep(50).then(() => authorized(asked))]);
  await reserve(...orderIds);
  let transactions = 0;
  const counting: Database = {
    ...database,
    transaction(...transaction) {
      transactions++;
      return database.transaction(...transaction);
    },
  };
  startWorker({ callsMax: 200, database: counting });
  await eventually(async () => expect(await published()).toHaveLength(200));
  // One transaction per outcome would make 200, and the claims.
  expect(transactions).toBeLessThan(100);
});

test("a payment whose row stays locked does not hold up the outcomes of others", async () => {
  const gate = Promise.withResolvers<void>();
  const orderIds = Array.from({ length: 20 }, (_, index) => `order-${index}`);
  for (const orderId of orderIds) script.set(orderId, [(asked) => gate.promise.then(() => authorized(asked))]);
  await reserve(...orderIds);
  startWorker();
  await eventually(() => expect(requests).toHaveLength(20));
  const other = await createConnection({ uri: schema.url });
  await other.beginTransaction();
  await other.query("SELECT 1 FROM payment WHERE order_id = 'order-7' FOR UPDATE");
  try {
    gate.resolve();
    await eventually(async () => expect(await published()).toHaveLength(19), 15_000);
    expect((await published()).map(({ orderId }) => orderId)).not.toContain("order-7");
    // Nothing was lost and asked for again.
    expect(requests).toHaveLength(20);
  } finally {
    other.destroy();
  }
  await eventually(async () => expect(await published()).toHaveLength(20), 20_000);
}, 60_000);

test("a call that waits for its retry holds no slot", async () => {
  const stuck = ["stuck-1", "stuck-2", "stuck-3", "stuck-4"];
  for (const orderId of stuck) script.set(orderId, [status(503)]);
  await reserve(...stuck);
  // So many attempts before that each waits for seconds.
  await database.execute("UPDATE payment SET attempts = 30");
  const worker = startWorker({ callsMax: 2 });
  await eventually(() => expect(requests.length).toBeGreaterThanOrEqual(4));
  await reserve("order-1");
  worker.wake();
  await eventually(async () => expect(await published()).toMatchObject([{ orderId: "order-1" }]));
});

test("several instances together make each call once", async () => {
  await reserve(...Array.from({ length: 100 }, (_, index) => `order-${index}`));
  for (let instance = 0; instance < 3; instance++) startWorker({ callsMax: 8, metrics: new Registry() });
  await eventually(async () => expect(await published()).toHaveLength(100));
  expect(requests).toHaveLength(100);
});

test("a worker waits for a database that is away", async () => {
  const { port: databasePort, hostname } = new URL(schema.url);
  const proxy = createServer((socket) => {
    const onward = connect(Number(databasePort), hostname);
    for (const end of [socket, onward]) end.on("error", () => undefined);
    socket.pipe(onward).pipe(socket);
  });
  const listen = (port: number) => new Promise<void>((resolve) => proxy.listen(port, "127.0.0.1", resolve));
  await listen(0);
  const address = proxy.address();
  const proxied = new URL(schema.url);
  proxied.port = String(typeof address === "object" ? address?.port : 0);
  proxied.hostname = "127.0.0.1";
  await new Promise((resolve) => proxy.close(resolve));

  const throughProxy = openDatabase({ url: proxied.toString(), connectionsMax: 2 });
  const worker = startWorker({ database: throughProxy });
  await reserve("order-1");
  await eventually(async () =>
    expect(await metric("payment_worker_failures_total", { step: "claim" })).toBeGreaterThan(1),
  );
  expect(requests).toEqual([]);
  await listen(Number(proxied.port));
  await eventually(async () => expect(await published()).toHaveLength(1));
  await worker.close();
  await throughProxy.close();
  proxy.close();
});

test("a worker that closes claims no more calls and records the outcomes of the current ones", async () => {
  script.set("order-1", [(asked) => Bun.sleep(150).then(() => authorized(asked))]);
  script.set("order-2", [never]);
  await reserve("order-1", "order-2", "order-3");
  const worker = startWorker({ callsMax: 2 });
  await eventually(() => expect(requests).toHaveLength(2));
  const startedMs = performance.now();
  await worker.close();
  expect(performance.now() - startedMs).toBeLessThan(4_500);
  expect((await rows()).map((row) => row.status)).toEqual(["AUTHORIZED", "AUTHORIZING", "AUTHORIZING"]);
  expect(requests).toHaveLength(2);
});
