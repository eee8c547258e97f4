/** Payment's worker against the fake gateway and its ledger. services/payment may not import the stack, so the test is here. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { eventRegistry, type HandledBy } from "../../proto/event-table.ts";
import { StockReservedSchema } from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCancelRequestedSchema, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { handleBatch, receivedEvent } from "../../relay/testing.ts";
import type { Database } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { createServiceSchema, eventually, type TestSchema } from "../kit/testing.ts";
import { createGatewayClient, type GatewayAnswer, type GatewayClient } from "../payment/gateway-client.ts";
import { paymentHandler } from "../payment/handlers.ts";
import { type PaymentWorker, startPaymentWorker } from "../payment/worker.ts";
import { serveFakeGateway } from "./fake-gateway.ts";

const orderId = "order-1";
const newId = () => Bun.randomUUIDv7();
const outbox = createOutbox({ service: "payment", registry: eventRegistry });
let schema: TestSchema;
let database: Database;

beforeAll(async () => {
  schema = await createServiceSchema("payment");
  database = schema.open(8);
});
afterAll(() => schema.drop());

/** Handles the messages with no free slots, so that the test's workers have to find the due calls. */
async function handle(...messages: readonly HandledBy<"payment">[]): Promise<void> {
  const worker = { freeSlots: () => 0, start: () => undefined, wake: () => undefined };
  const handler = paymentHandler({ newId, worker });
  const events = messages.map((message) => receivedEvent(message));
  await database.transaction((transaction) => handleBatch(transaction, handler, outbox, events));
}

async function payment() {
  const [row] = await database.query("SELECT * FROM payment WHERE order_id = ?", [orderId]);
  return row;
}

const startWorker = (gatewayClient: GatewayClient): PaymentWorker =>
  startPaymentWorker({
    database,
    gatewayClient,
    outbox,
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId,
    log: silentLogger,
    metrics: new Registry(),
    callsMax: 1,
  });

test("an authorise of a suspended process that arrives after the void charges nothing", async () => {
  const folder = await mkdtemp(join(tmpdir(), "suspended-authorise-"));
  const gateway = serveFakeGateway({ host: "127.0.0.1", port: 0, ledgerFile: join(folder, "ledger.sqlite") });
  const client = createGatewayClient({ url: gateway.url, timeoutMs: 300 });
  const resumed = Promise.withResolvers<void>();
  const workers: PaymentWorker[] = [];
  let answer: Promise<GatewayAnswer> | undefined;
  try {
    const total = { currencyCode: "EUR", minorUnits: 1999n };
    await handle(
      create(OrderPlacedSchema, { orderId, total, paymentMethod: "pm_ok" }),
      create(StockReservedSchema, { orderId }),
    );
    // One process is suspended between its claim and its call. For the others, its lease runs out.
    workers.push(
      startWorker(async (call) => {
        await resumed.promise;
        answer = client(call);
        return await answer;
      }),
    );
    await eventually(async () => expect((await payment())?.attempts).toBe(1));
    await handle(create(OrderCancelRequestedSchema, { orderId }));
    workers.push(startWorker(client));
    await eventually(async () => expect((await payment())?.status).toBe("VOIDED"));
    resumed.resolve();
    await eventually(() => expect(answer).toBeDefined());
    expect((await answer)?.outcome).toEqual({ $typeName: "GatewayVoided" });
    await Promise.all(workers.map((worker) => worker.close()));
    const ledger = await fetch(`${gateway.url}/v1/orders/${orderId}`);
    expect(await ledger.json()).toMatchObject({ voided: true, authorizations: [] });
    const published = await database.query("SELECT type FROM payment_outbox_event");
    expect(published).toEqual([{ type: "shop.payment.v1.PaymentVoided" }]);
    expect(await payment()).toMatchObject({ status: "VOIDED", voided_minor: 0 });
  } finally {
    resumed.resolve();
    await Promise.all(workers.map((worker) => worker.close()));
    await gateway.close();
    await rm(folder, { recursive: true, force: true });
  }
});
