/** For Order's integration tests: placements, the inbox as main.ts creates it, and records as the topic delivers them. */
import type { Message } from "@bufbuild/protobuf";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import { createInbox, type Inbox } from "../../relay/inbox/inbox.ts";
import type { TopicRecord } from "../../relay/kafka/consumer.ts";
import { createOutbox } from "../../relay/outbox/append.ts";
import { asTopicRecord } from "../../relay/testing.ts";
import type { Database, Queryable } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { handledTypes, orderHandler } from "./handlers.ts";
import type { SagaMetrics } from "./metrics.ts";
import { newOrder, orderPlaced, type PlacementRequest } from "./placement.ts";
import { type Placement, placeNewOrders } from "./repository.ts";

export const newId = () => Bun.randomUUIDv7();
export const outbox = createOutbox({ service: "order", registry: eventRegistry });
export const deadlineMs = 300_000;
export const neverAborted = new AbortController().signal;
export const noMetrics = { recordFacts: () => undefined };

/** A valid new order of one line, with the given changes. */
export function newPlacement(changes: Partial<PlacementRequest> = {}): Placement {
  const request = { owner: "", requestId: newId(), lines: [{ sku: "sku-1", quantity: 1 }], paymentMethod: "pm_ok" };
  const order = newOrder(newId(), { ...request, ...changes }, () => ({ currencyCode: "EUR", minorUnits: 100n }));
  return { order, event: { id: newId(), aggregateId: order.orderId, message: orderPlaced(order), headers: {} } };
}

/** Places `count` orders and returns their ids. */
export async function placedOrders(database: Database, count: number): Promise<string[]> {
  const placements = Array.from({ length: count }, () => newPlacement());
  await placeNewOrders(database, outbox, placements, deadlineMs);
  return placements.map(({ order }) => order.orderId);
}

/** Order's inbox as main.ts creates it. */
export function orderInbox(database: Database, sagaMetrics: Pick<SagaMetrics, "recordFacts"> = noMetrics): Inbox {
  return createInbox({
    service: "order",
    database,
    registry: eventRegistry,
    handles: handledTypes,
    records: "all",
    keyOf: ({ orderId }) => orderId,
    handle: orderHandler({ newId, sagaMetrics }),
    outbox,
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId,
    log: silentLogger,
    metrics: new Metrics(),
  });
}

/** The record that delivers an event of another service, or of Order itself. */
export function received(message: Message & { readonly orderId: string }): TopicRecord {
  return asTopicRecord(
    { id: newId(), aggregateId: message.orderId, message, headers: { correlationId: "request" } },
    { ceSource: "/shop/test" },
  );
}

export async function countRows(
  database: Queryable,
  table: string,
  where: string,
  values: readonly unknown[] = [],
): Promise<number> {
  const [row] = await database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table} WHERE ${where}`, values);
  return Number(row?.n);
}
