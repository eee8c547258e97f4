/** I7: an event takes effect once, however often it is delivered: answered once, never skipped, one status change each. */
import type { ServiceName } from "../../../../proto/event-table.ts";
import { StockReservedSchema } from "../../../../proto/gen/shop/inventory/v1/events_pb.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderFailedSchema,
} from "../../../../proto/gen/shop/order/v1/events_pb.ts";
import { PaymentFailedSchema } from "../../../../proto/gen/shop/payment/v1/events_pb.ts";
import { serviceNames } from "../../../stack/services.ts";
import { type EventRow, publisherOf, shortNameOf } from "../books.ts";
import { type OrderCheck, recordedTypes, withoutPayload, withoutPaymentMethod } from "./order-check.ts";

export function checkEffectOnce(check: OrderCheck): void {
  for (const service of serviceNames) {
    checkAnswers(check, service);
    checkHandledEventsExist(check, service);
    checkNoneSkipped(check, service);
  }
  checkVersion(check);
}

/** A service answers an event at most once, and only if it has handled it. */
function checkAnswers(check: OrderCheck, service: ServiceName): void {
  const { events, inbox } = check.books[service];
  const answersByCause = new Map<string, EventRow[]>();
  for (const row of events) {
    if (row.causationId === null) continue;
    answersByCause.set(row.causationId, [...(answersByCause.get(row.causationId) ?? []), row]);
  }
  for (const [cause, answers] of answersByCause) {
    const evidence = { [`${service} outbox`]: answers.map(withoutPayload), [`${service} inbox`]: inbox };
    if (answers.length > 1) check.report("I7", `${service} answered event ${cause} ${answers.length} times`, evidence);
    if (!inbox.some(({ eventId, outcome }) => eventId === cause && outcome === "HANDLED")) {
      check.report("I7", `${service} answered event ${cause} without having handled it`, evidence);
    }
  }
}

/** A service handles only events that their publisher wrote. */
function checkHandledEventsExist(check: OrderCheck, service: ServiceName): void {
  const { books } = check;
  for (const row of books[service].inbox) {
    const publisher = publisherOf(row.type);
    if (publisher === undefined || check.isPruned(publisher)) continue;
    if (books[publisher].events.some(({ eventId }) => eventId === row.eventId)) continue;
    check.report("I7", `${service} handled event ${row.eventId}, but ${publisher} has no such event`, {
      [`${service} inbox`]: row,
      [`${publisher} outbox`]: books[publisher].events.map(withoutPayload),
    });
  }
}

/** A service that has read past an event has handled it, unless its key is parked. */
function checkNoneSkipped(check: OrderCheck, reader: ServiceName): void {
  const { inbox, parked } = check.books[reader];
  if (parked !== undefined) return;
  const handled = new Set(inbox.map(({ eventId }) => eventId));
  for (const occurrence of check.books.topic) {
    if (!recordedTypes[reader].has(occurrence.type) || handled.has(occurrence.eventId)) continue;
    const nextOffset = check.context.committed[reader].get(occurrence.partition) ?? 0;
    if (nextOffset <= occurrence.offset) continue;
    const name = `${shortNameOf(occurrence.type)} ${occurrence.eventId}`;
    check.report("I7", `${reader} has read past ${name} without handling it`, {
      topic: occurrence,
      nextOffset,
      [`${reader} inbox`]: inbox,
    });
  }
}

/** Each status change of an order raises its version by 1, and has an event that Order handled or published. */
function checkVersion(check: OrderCheck): void {
  const { orderRow, order } = check.books;
  if (orderRow === undefined || check.isPruned("order")) return;
  const handled = [StockReservedSchema, PaymentFailedSchema].map(({ typeName }) => typeName) as readonly string[];
  const published = [OrderCancelRequestedSchema, OrderCompletedSchema, OrderFailedSchema];
  const changes =
    order.inbox.filter(({ type, outcome }) => handled.includes(type) && outcome === "HANDLED").length +
    published.reduce((sum, schema) => sum + check.eventsOf("order", schema).length, 0);
  if (orderRow.version === 1 + changes) return;
  check.report("I7", `the order has version ${orderRow.version}, but its events make it ${1 + changes}`, {
    order: withoutPaymentMethod(orderRow),
    inbox: order.inbox,
    outbox: order.events.map(withoutPayload),
  });
}
