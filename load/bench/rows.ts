import { create } from "@bufbuild/protobuf";
import { toOutboxRow } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import type { SqlValue } from "../../services/kit/statements.ts";
import { childTraceparent } from "../../services/kit/traceparent.ts";

/** The outbox columns of a benchmark's rows, in the order of their values. */
export const rowColumns = ["id", "aggregate_id", "type", "payload", "headers", "status", "published_at"];

/** With this many lines the payload of `OrderPlaced` has 300 bytes. */
const linesCount = 5;

/** Returns a function that makes outbox rows, taking turns over `keysCount` keys. Each key's event is encoded only once. */
export function createBenchRows(keysCount: number): (status: string) => SqlValue[] {
  const events = Array.from({ length: keysCount }, () => orderPlaced(Bun.randomUUIDv7()));
  let made = 0;
  return (status) => {
    const event = events[made++ % keysCount];
    if (event === undefined) throw new Error("A benchmark needs at least one key.");
    const publishedAt = status === "PUBLISHED" ? new Date() : null;
    return [Bun.randomUUIDv7(), event.aggregateId, event.type, event.payload, event.headers, status, publishedAt];
  };
}

/** An event as Order appends it, with all of its headers. */
function orderPlaced(orderId: string) {
  const message = create(OrderPlacedSchema, {
    orderId,
    lines: Array.from({ length: linesCount }, (_, index) => ({ sku: `sku-000${index + 1}`, quantity: 2 })),
    total: { currencyCode: "EUR", minorUnits: 123_456_789n },
    paymentMethod: "pm_ok",
  });
  const headers = {
    traceparent: childTraceparent(),
    correlationId: crypto.randomUUID(),
    causationId: Bun.randomUUIDv7(),
  };
  return toOutboxRow({ id: "", aggregateId: orderId, message, headers }, eventRegistry);
}
