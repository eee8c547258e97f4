/** I5: an order has one final event. COMPLETED means sold and authorised; FAILED means released and voided. */
import { StockReleasedSchema } from "../../../../proto/gen/shop/inventory/v1/events_pb.ts";
import { OrderCompletedSchema, OrderFailedSchema } from "../../../../proto/gen/shop/order/v1/events_pb.ts";
import { PaymentVoidedSchema } from "../../../../proto/gen/shop/payment/v1/events_pb.ts";
import { type OrderRow, shortNameOf } from "../books.ts";
import { areEqual, type OrderCheck, withoutPayload, withoutPaymentMethod } from "./order-check.ts";

export function checkFinalState(check: OrderCheck): void {
  const { orderRow } = check.books;
  if (orderRow === undefined) return;
  checkFinalEvents(check, orderRow);
  if (orderRow.status === "COMPLETED") checkCompleted(check, orderRow);
  if (orderRow.status === "FAILED") checkFailed(check, orderRow);
}

function checkFinalEvents(check: OrderCheck, orderRow: OrderRow): void {
  const { status } = orderRow;
  const completed = check.eventsOf("order", OrderCompletedSchema);
  const failed = check.eventsOf("order", OrderFailedSchema);
  const isCountRight = (end: "COMPLETED" | "FAILED", count: number) => {
    if (count === 0) return status !== end || check.isPruned("order");
    return status === end && count === 1;
  };
  if (isCountRight("COMPLETED", completed.length) && isCountRight("FAILED", failed.length)) return;
  check.report(
    "I5",
    `the order is ${status}, but it has ${completed.length} OrderCompleted and ${failed.length} OrderFailed`,
    { order: withoutPaymentMethod(orderRow), outbox: [...completed, ...failed].map(withoutPayload) },
  );
}

function checkCompleted(check: OrderCheck, orderRow: OrderRow): void {
  const { reservation, paymentRow, inventory } = check.books;
  const order = withoutPaymentMethod(orderRow);
  const hasInventoryHandledIt = inventory.inbox.some(
    ({ type, outcome }) => type === OrderCompletedSchema.typeName && outcome !== "PARKED",
  );
  // Stock is held until inventory has handled OrderCompleted, and sold from then on.
  const isKept = reservation?.status === "SOLD" || (reservation?.status === "HELD" && !hasInventoryHandledIt);
  if (reservation === undefined || !isKept) {
    check.report("I5", `the order is COMPLETED, but its stock is ${reservation?.status ?? "not reserved"}`, {
      order,
      reservation,
    });
  } else if (!areEqual(reservation.lines, orderRow.lines)) {
    check.report("I5", "the order is COMPLETED, but the lines sold differ from the lines ordered", {
      order,
      reservation,
    });
  }
  if (paymentRow?.status !== "AUTHORIZED") {
    check.report("I5", `the order is COMPLETED, but its payment is ${paymentRow?.status ?? "missing"}`, {
      order,
      payment: paymentRow,
    });
  }
}

const maybeCharged: ReadonlySet<string> = new Set(["AUTHORIZED", "AUTHORIZING", "VOIDING", "VOID_REFUSED"]);

function checkFailed(check: OrderCheck, orderRow: OrderRow): void {
  const { reservation, paymentRow } = check.books;
  const rows = { order: withoutPaymentMethod(orderRow), reservation, payment: paymentRow };
  if (reservation?.status === "HELD" || reservation?.status === "SOLD") {
    check.report("I5", `the order is FAILED, but its stock is ${reservation.status}`, rows);
  }
  if (paymentRow !== undefined && maybeCharged.has(paymentRow.status)) {
    check.report("I5", `the order is FAILED, but its payment is ${paymentRow.status}`, rows);
  }
  const { failureReason } = orderRow;
  const isCancelled = failureReason === "TIMED_OUT" || failureReason === "CANCELLED";
  const compensations = [
    {
      service: "inventory",
      schema: StockReleasedSchema,
      isNeeded: isCancelled || failureReason === "PAYMENT_DECLINED",
    },
    { service: "payment", schema: PaymentVoidedSchema, isNeeded: isCancelled },
  ] as const;
  for (const { service, schema, isNeeded } of compensations) {
    if (!isNeeded || check.isPruned(service) || check.eventsOf(service, schema).length > 0) continue;
    const name = shortNameOf(schema.typeName);
    check.report("I5", `the order is FAILED (${failureReason}), but ${service} never published ${name}`, rows);
  }
}
