/** I4: an order becomes final in time, and its events are published and handled in time, unless an operator is needed. */
import { isFinal } from "../../../order/domain.ts";
import { serviceNames } from "../../../stack/services.ts";
import { shortNameOf } from "../books.ts";
import { type OrderCheck, recordedTypes, withoutPayload, withoutPaymentMethod } from "./order-check.ts";

export function checkProgress(check: OrderCheck): void {
  const { books, context } = check;
  const { orderRow, readAt } = books;
  if (orderRow !== undefined && !isFinal(orderRow.status)) {
    const ageMs = readAt.order.getTime() - orderRow.createdAt.getTime();
    if (ageMs > context.overdueAfterMs) {
      check.report("I4", `still ${orderRow.status} after ${seconds(ageMs)}`, { order: withoutPaymentMethod(orderRow) });
    }
  }
  for (const publisher of serviceNames) {
    for (const row of books[publisher].events) {
      const ageMs = readAt[publisher].getTime() - (row.publishedAt ?? row.occurredAt).getTime();
      if (ageMs <= context.overdueAfterMs) continue;
      const name = shortNameOf(row.type);
      const evidence = { [`${publisher} outbox`]: withoutPayload(row) };
      if (row.status !== "PUBLISHED") {
        check.report("I4", `the relay has not published ${name} after ${seconds(ageMs)}`, evidence);
        continue;
      }
      for (const reader of serviceNames) {
        if (!recordedTypes[reader].has(row.type)) continue;
        if (books[reader].inbox.some(({ eventId }) => eventId === row.eventId)) continue;
        check.report("I4", `${reader} has not handled ${name} after ${seconds(ageMs)}`, evidence);
      }
    }
  }
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1_000)} s`;
}
