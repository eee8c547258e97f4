/** The saga as clients see it, on the real processes: every path, every protocol, and the replies to invalid requests. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create, type Message } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { toOutboxRow, toRecord } from "../../proto/envelope.ts";
import { eventRegistry, type ServiceName, sagaTopic } from "../../proto/event-table.ts";
import { StockReservedSchema } from "../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCancelRequestedSchema, OrderCompletedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { Order_Status } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { PaymentAuthorizedSchema, PaymentFailedSchema } from "../../proto/gen/shop/payment/v1/events_pb.ts";
import { listParked } from "../../relay/inbox/parked.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { oddRecords, produceRaw } from "../../relay/kafka/testing.ts";
import { eventually } from "../kit/testing.ts";
import { traceIdOf } from "../kit/traceparent.ts";
import { serviceNames } from "./services.ts";
import { grpcClient, kafkaOf, orderRequest, outcomeOf, startStack, type TestStack, watchToEnd } from "./testing.ts";
import { findDiscrepancies } from "./testing-books.ts";

let stack: TestStack;
beforeAll(async () => {
  stack = await startStack();
}, 120_000);
afterAll(() => stack.stop(), 60_000);

const paths = [
  { name: "complete", change: {}, statuses: ["PENDING", "STOCK_RESERVED", "COMPLETED"] },
  { name: "out of stock", change: { sku: "sku-none" }, statuses: ["PENDING", "FAILED/OUT_OF_STOCK"] },
  {
    name: "declined",
    change: { paymentMethod: "pm_declined" },
    statuses: ["PENDING", "STOCK_RESERVED", "COMPENSATING/PAYMENT_DECLINED", "FAILED/PAYMENT_DECLINED"],
  },
] as const;

/** A slow watcher may miss a status, but must not see one twice, out of order, or of another path. */
function expectPath(seen: readonly string[], statuses: readonly string[]) {
  expect(seen.at(-1)).toBe(statuses.at(-1) ?? "");
  expect(statuses.filter((status) => seen.includes(status))).toEqual([...seen]);
}

describe("every path over every protocol", () => {
  for (const { name, change, statuses } of paths) {
    test(`an order takes the path "${name}" over Connect`, async () => {
      const placed = await stack.connect.placeOrder(orderRequest(change));
      expect(placed.status).toBe(Order_Status.PENDING);
      const orders = await watchToEnd(stack.connect, placed.orderId);
      expectPath(orders.map(outcomeOf), statuses);
      const { order } = await stack.connect.getOrder({ orderId: placed.orderId });
      expect(order).toEqual(orders.at(-1));
    });

    test(`an order takes the path "${name}" over gRPC-Web`, async () => {
      const placed = await stack.grpcWeb.placeOrder(orderRequest(change));
      expectPath((await watchToEnd(stack.grpcWeb, placed.orderId)).map(outcomeOf), statuses);
    });

    test(`an order takes the path "${name}" over gRPC with grpc-js`, async () => {
      const client = grpcClient(await stack.read());
      const placed = await client.placeOrder(orderRequest(change));
      expect(placed.status).toBe(Order_Status.PENDING);
      expectPath((await client.watchOrder(placed.orderId)).map(outcomeOf), statuses);
      client.close();
    });
  }

  test("an order can be placed with plain JSON, whose reply reads PENDING", async () => {
    const { order } = await stack.read();
    const response = await fetch(`${order.http}/shop.order.v1.OrderService/PlaceOrder`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(orderRequest()),
    });
    expect(await response.json()).toEqual({ orderId: expect.stringMatching(/^[0-9a-f-]{36}$/), status: "PENDING" });
  });

  test("an order completes although its payment timed out at first, charged or not", async () => {
    for (const paymentMethod of ["pm_timeout_charged", "pm_timeout_not_charged", "pm_slow"]) {
      const placed = await stack.connect.placeOrder(orderRequest({ paymentMethod }));
      expect((await watchToEnd(stack.connect, placed.orderId)).map(outcomeOf).at(-1)).toBe("COMPLETED");
    }
  });
});

describe("CancelOrder", () => {
  test("CancelOrder compensates everything while the payment is in flight", async () => {
    const { orderId } = await stack.connect.placeOrder(orderRequest({ paymentMethod: "pm_slow" }));
    const watching = watchToEnd(stack.connect, orderId);
    const { order } = await stack.connect.cancelOrder({ orderId, reason: "changed my mind" });
    expect(order && outcomeOf(order)).toBe("COMPENSATING/CANCELLED");
    expect((await watching).map(outcomeOf).at(-1)).toBe("FAILED/CANCELLED");
    const again = await stack.connect.cancelOrder({ orderId });
    expect(again.order && outcomeOf(again.order)).toBe("FAILED/CANCELLED");
  });

  test("CancelOrder refuses a completed order", async () => {
    const { orderId } = await stack.connect.placeOrder(orderRequest());
    await watchToEnd(stack.connect, orderId);
    await expect(stack.connect.cancelOrder({ orderId })).rejects.toMatchObject({ code: Code.FailedPrecondition });
  });

  test("CancelOrder leaves none of many concurrent orders half done", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 30 }, async () => {
        const { orderId } = await stack.connect.placeOrder(orderRequest());
        await stack.connect.cancelOrder({ orderId }).catch(() => undefined);
        return outcomeOf((await watchToEnd(stack.connect, orderId)).at(-1) ?? { status: 0, failureReason: 0 });
      }),
    );
    expect(outcomes.filter((outcome) => outcome !== "COMPLETED" && outcome !== "FAILED/CANCELLED")).toEqual([]);
  });
});

describe("WatchOrder", () => {
  test("WatchOrder sends growing versions; a resumed watch sends newer ones only, or the final one once", async () => {
    const { orderId } = await stack.connect.placeOrder(orderRequest());
    const versions = (await watchToEnd(stack.connect, orderId)).map((order) => order.version);
    expect(versions).toEqual(versions.toSorted((a, b) => a - b));
    expect(new Set(versions).size).toBe(versions.length);
    for (const afterVersion of [3, 99]) {
      const seen: number[] = [];
      for await (const { event } of stack.connect.watchOrder({ orderId, afterVersion })) {
        if (event.case === "order") seen.push(event.value.version);
      }
      expect(seen).toEqual([3]);
    }
  });

  test("one order is one trace, from the caller to the last event", async () => {
    const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
    const { orderId } = await stack.connect.placeOrder(orderRequest(), {
      headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
    });
    await watchToEnd(stack.connect, orderId);
    const traces: string[] = [];
    for (const [service, database] of Object.entries(stack.databases)) {
      const rows = await database.query<{ type: string; headers: string }>(
        `SELECT type, headers FROM ${service}_outbox_event WHERE aggregate_id = ?`,
        [orderId],
      );
      for (const row of rows) {
        const headers = JSON.parse(row.headers) as { traceparent: string; correlationId: string };
        traces.push(`${row.type} ${traceIdOf(headers.traceparent)}`);
      }
    }
    expect(traces.sort()).toEqual(
      [
        "shop.inventory.v1.StockReserved",
        "shop.order.v1.OrderCompleted",
        "shop.order.v1.OrderPlaced",
        "shop.payment.v1.PaymentAuthorized",
      ].map((type) => `${type} ${traceId}`),
    );
  });
});

describe("PlaceOrder with the same request id", () => {
  test("PlaceOrder returns the same order, with its current status, for the same request id", async () => {
    const request = orderRequest();
    const first = await stack.connect.placeOrder(request);
    await watchToEnd(stack.connect, first.orderId);
    const again = await stack.connect.placeOrder({ ...request, requestId: request.requestId.toUpperCase() });
    expect(again).toMatchObject({ orderId: first.orderId, status: Order_Status.COMPLETED });
  });

  test("PlaceOrder creates one order for twenty concurrent requests with the same id", async () => {
    const request = orderRequest();
    const placed = await Promise.all(Array.from({ length: 20 }, () => stack.connect.placeOrder(request)));
    expect(new Set(placed.map((it) => it.orderId)).size).toBe(1);
    const rows = await stack.databases.order.query("SELECT order_id FROM orders WHERE request_id = ?", [
      request.requestId,
    ]);
    expect(rows.length).toBe(1);
  });

  test("PlaceOrder with a known request id and other fields is ALREADY_EXISTS", async () => {
    const request = orderRequest();
    await stack.connect.placeOrder(request);
    const other = stack.connect.placeOrder({ ...request, paymentMethod: "pm_declined" });
    await expect(other).rejects.toMatchObject({ code: Code.AlreadyExists });
  });
});

describe("an invalid request", () => {
  const line = { sku: "sku-0001", quantity: 1 };
  const mistakes: Readonly<Record<string, readonly [Partial<ReturnType<typeof orderRequest>>, string]>> = {
    "no lines": [{ lines: [] }, "lines"],
    "an unknown SKU": [{ lines: [{ sku: "sku-0000", quantity: 1 }] }, "lines[0].sku"],
    "quantity 0": [{ lines: [{ ...line, quantity: 0 }] }, "lines[0].quantity"],
    "quantity 1001": [{ lines: [{ ...line, quantity: 1_001 }] }, "lines[0].quantity"],
    "101 lines": [{ lines: Array(101).fill(line) }, "lines"],
    "a SKU twice": [{ lines: [line, line] }, "lines[1].sku"],
    "an unknown payment method": [{ paymentMethod: "visa" }, "payment_method"],
    "a request id that is not a UUID": [{ requestId: "1" }, "request_id"],
  };
  for (const [name, [change, field]] of Object.entries(mistakes)) {
    test(`PlaceOrder with ${name} is INVALID_ARGUMENT, names ${field} and writes nothing`, async () => {
      const count = () => stack.databases.order.query("SELECT COUNT(*) AS n FROM orders");
      const before = await count();
      const error = await stack.connect.placeOrder({ ...orderRequest(), ...change }).then(
        () => undefined,
        (thrown) => ConnectError.from(thrown),
      );
      expect(error?.code).toBe(Code.InvalidArgument);
      expect(error?.rawMessage).toStartWith(`${field} `);
      expect(await count()).toEqual(before);
    });
  }

  test("GetOrder and WatchOrder of an unknown order are NOT_FOUND, of a malformed id INVALID_ARGUMENT", async () => {
    const watchFirst = async (orderId: string) => {
      for await (const _ of stack.connect.watchOrder({ orderId })) return;
    };
    const unknown = "018f0000-0000-7000-8000-000000000000";
    await expect(stack.connect.getOrder({ orderId: unknown })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(watchFirst(unknown)).rejects.toMatchObject({ code: Code.NotFound });
    await expect(stack.connect.getOrder({ orderId: "42" })).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(watchFirst("42")).rejects.toMatchObject({ code: Code.InvalidArgument });
  });

  test("CancelOrder of an unknown order, of a malformed id or with too long a reason cancels nothing", async () => {
    const cancel = (orderId: string, reason = "") => stack.connect.cancelOrder({ orderId, reason });
    const unknown = "018f0000-0000-7000-8000-000000000000";
    await expect(cancel(unknown)).rejects.toMatchObject({ code: Code.NotFound });
    await expect(cancel("42")).rejects.toMatchObject({ code: Code.InvalidArgument });
    const { orderId } = await stack.connect.placeOrder(orderRequest({ paymentMethod: "pm_slow" }));
    await expect(cancel(orderId, "x".repeat(501))).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect((await watchToEnd(stack.connect, orderId)).map(outcomeOf).at(-1)).toBe("COMPLETED");
  });

  test("a request over 64 KiB is refused by both listeners", async () => {
    const huge = { ...orderRequest(), paymentMethod: `pm_${"a".repeat(70_000)}` };
    await expect(stack.connect.placeOrder(huge)).rejects.toMatchObject({ code: Code.ResourceExhausted });
    const client = grpcClient(await stack.read());
    await expect(client.placeOrder(huge)).rejects.toMatchObject({ code: Code.ResourceExhausted });
    client.close();
  });
});

test("unexpected events on the topic are skipped and counted, or handled by the rules, and stop no consumer", async () => {
  const before = await stack.read();
  const skipped = async () => {
    const text = await (await fetch(`${before.health.inventory}/metrics`)).text();
    return Number(/^inbox_events_total\{.*outcome="skipped".*\} (\d+)/m.exec(text)?.[1] ?? 0);
  };
  const skippedBefore = await skipped();
  const orderId = Bun.randomUUIDv7();
  const record = (message: Message, type: string = message.$typeName) => {
    const event = { id: Bun.randomUUIDv7(), aggregateId: orderId, message, headers: {} };
    const row = { ...toOutboxRow(event, eventRegistry), occurredAt: new Date(), seq: "1" };
    const made = toRecord(row, { ceSource: "/shop/elsewhere", encoding: "protobuf", registry: eventRegistry });
    return { ...made, headers: { ...made.headers, ce_type: type } };
  };
  const producer = await openProducer({ ...kafkaOf(before), timeoutMs: 5_000 });
  await producer.send(sagaTopic, [
    record(create(StockReservedSchema, { orderId }), "shop.shipping.v1.ParcelSent"),
    // For an order that was never placed.
    record(create(StockReservedSchema, { orderId })),
    record(create(PaymentAuthorizedSchema, { orderId })),
    record(create(PaymentFailedSchema, { orderId })),
    record(create(OrderCompletedSchema, { orderId })),
    record(create(OrderCancelRequestedSchema, { orderId })),
  ]);
  await producer.close();

  const answers = async (service: ServiceName) => {
    const rows = await stack.databases[service].query<{ type: string }>(
      `SELECT type FROM ${service}_outbox_event WHERE aggregate_id = ? AND status = 'PUBLISHED'`,
      [orderId],
    );
    return rows.map(({ type }) => type);
  };
  // Inventory and payment remember and answer a cancel even for an order that they do not know.
  await eventually(async () => {
    expect(await answers("inventory")).toEqual(["shop.inventory.v1.StockReleased"]);
    expect(await answers("payment")).toEqual(["shop.payment.v1.PaymentVoided"]);
  });
  const handled = () =>
    stack.databases.order.query("SELECT COUNT(*) AS events FROM order_inbox_event WHERE aggregate_id = ?", [orderId]);
  // The six events and the two answers.
  await eventually(async () => expect(await handled()).toEqual([{ events: 8 }]));
  expect(await answers("order")).toEqual([]);
  await expect(stack.connect.getOrder({ orderId })).rejects.toMatchObject({ code: Code.NotFound });
  expect((await skipped()) - skippedBefore).toBeGreaterThanOrEqual(1);

  const { orderId: next } = await stack.connect.placeOrder(orderRequest());
  expect((await watchToEnd(stack.connect, next)).map(outcomeOf).at(-1)).toBe("COMPLETED");
  expect((await stack.read()).processes).toEqual(before.processes);
});

test("stock, money and events add up after all of these orders", async () => {
  await eventually(async () => {
    expect(await findDiscrepancies(stack)).toEqual([]);
  }, 30_000);
});

test("192 odd records of another client stop nothing: no process ends, and orders around them complete", async () => {
  const before = await stack.read();
  const kafka = kafkaOf(before);
  const placed: string[] = [];
  const place = async (count: number) => {
    const answers = Array.from({ length: count }, () => stack.connect.placeOrder(orderRequest()));
    placed.push(...(await Promise.all(answers)).map(({ orderId }) => orderId));
  };
  // A type that each service handles, for keys that no order has.
  const event = (message: Message & { readonly orderId: string }) => {
    const row = toOutboxRow(
      { id: Bun.randomUUIDv7(), aggregateId: message.orderId, message, headers: {} },
      eventRegistry,
    );
    const sent = { ...row, occurredAt: new Date(), seq: "1" };
    return toRecord(sent, { ceSource: "/shop/elsewhere", encoding: "protobuf", registry: eventRegistry });
  };
  const events = [OrderCancelRequestedSchema, StockReservedSchema, PaymentFailedSchema].map(
    (schema) => () => event(create(schema, { orderId: Bun.randomUUIDv7() })),
  );
  const odd = Array.from({ length: 12 }, (_, partition) => {
    const made = events[partition % events.length]?.() ?? event(create(StockReservedSchema));
    return oddRecords(made.headers.ce_type ?? "", made).map((it) => ({ ...it, partition }));
  }).flat();
  expect(odd.length).toBe(192);
  await place(20);
  await produceRaw(kafka, sagaTopic, odd.slice(0, 96));
  await place(20);
  await produceRaw(kafka, sagaTopic, odd.slice(96));
  await place(20);
  for (const orderId of placed) {
    expect((await watchToEnd(stack.connect, orderId)).map(outcomeOf).at(-1)).toBe("COMPLETED");
  }
  // Every service is past all of them.
  const admin = await openAdmin(kafka);
  await eventually(async () => {
    const ends = await admin.endOffsets(sagaTopic);
    for (const group of serviceNames) {
      const committed = new Map(
        (await admin.committedOffsets(group, sagaTopic)).map(({ partition, offset }) => [partition, offset]),
      );
      expect(ends.filter(({ partition, offset }) => committed.get(partition) !== offset)).toEqual([]);
    }
  }, 20_000);
  await admin.close();
  for (const service of serviceNames) {
    const parked = await listParked(stack.databases[service], service);
    expect(parked.length).toBeGreaterThan(0);
    expect(new Set(parked.map(({ reason }) => reason))).toEqual(new Set(["UNDECODABLE"]));
    expect((await fetch(`${before.health[service]}/readyz`)).status).toBe(200);
  }
  expect((await stack.read()).processes).toEqual(before.processes);
}, 60_000);
