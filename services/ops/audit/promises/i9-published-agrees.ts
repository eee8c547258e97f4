/**
 * I9: what each service published, in its own order, agrees with its rows: reserved and released lines, authorised and
 * voided amounts, the final event.
 */
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../../../proto/gen/shop/inventory/v1/events_pb.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderFailedSchema,
  OrderPlacedSchema,
} from "../../../../proto/gen/shop/order/v1/events_pb.ts";
import { Order_FailureReason } from "../../../../proto/gen/shop/order/v1/order_pb.ts";
import {
  PaymentAuthorizedSchema,
  PaymentFailedSchema,
  PaymentVoidedSchema,
} from "../../../../proto/gen/shop/payment/v1/events_pb.ts";
import type { Money } from "../../../../proto/gen/shop/type/v1/money_pb.ts";
import {
  type EventRow,
  type PaymentRow,
  quantitiesBySku,
  type ReservationRow,
  type SkuQuantities,
  shortNameOf,
} from "../books.ts";
import { areEqual, decode, type OrderCheck, withoutPayload, withoutPaymentMethod } from "./order-check.ts";

export function checkPublished(check: OrderCheck): void {
  checkOrdersEvents(check);
  checkInventorysEvents(check);
  checkPaymentsEvents(check);
}

function checkOrdersEvents(check: OrderCheck): void {
  const { orderRow } = check.books;
  if (orderRow === undefined) return;
  const report = (row: EventRow, what: string) =>
    check.report("I9", `${shortNameOf(row.type)} ${what}`, {
      order: withoutPaymentMethod(orderRow),
      outbox: withoutPayload(row),
    });
  for (const row of check.eventsOf("order", OrderPlacedSchema)) {
    const event = decode(OrderPlacedSchema, row);
    if (event === undefined) continue;
    if (!areEqual(quantitiesBySku(event.lines), orderRow.lines)) report(row, "and the order have different lines");
    if (!isAmount(event.total, orderRow.totalMinor, orderRow.currencyCode)) {
      report(row, "and the order have different totals");
    }
    if (event.paymentMethod !== orderRow.paymentMethod) report(row, "and the order have different payment methods");
  }
  for (const schema of [OrderCancelRequestedSchema, OrderFailedSchema]) {
    for (const row of check.eventsOf("order", schema)) {
      const event = decode(schema, row);
      if (event !== undefined && Order_FailureReason[event.reason] !== orderRow.failureReason) {
        report(row, "and the order have different failure reasons");
      }
    }
  }
  const isFinalEvent = ({ type }: EventRow) =>
    type === OrderCompletedSchema.typeName || type === OrderFailedSchema.typeName;
  const { events } = check.books.order;
  const end = events.findIndex(isFinalEvent);
  const later = end === -1 ? undefined : events[end + 1];
  // I5 reports a second final event.
  if (later !== undefined && !isFinalEvent(later)) report(later, "was published after the final event");
}

function isAmount(money: Money | undefined, minorUnits: string | null, currencyCode: string | null): boolean {
  return money !== undefined && String(money.minorUnits) === minorUnits && money.currencyCode === currencyCode;
}

/** What inventory's events say it has done for an order. */
interface StockHistory {
  /** The lines of StockReserved. */
  reserved: SkuQuantities | undefined;
  refused: boolean;
  /** How often StockReleased was published. */
  releases: number;
  /** Whether the reserved lines are not released yet. */
  held: boolean;
}

function checkInventorysEvents(check: OrderCheck): void {
  if (check.isPruned("inventory")) return;
  const { reservation } = check.books;
  const { events } = check.books.inventory;
  const report = (what: string) => check.report("I9", what, { reservation, outbox: events });
  const history = stockHistoryOf(events, report);
  const wanted = reservationAfter(history);
  if (wanted.statuses.includes(reservation?.status) && areEqual(reservation?.lines ?? [], wanted.lines)) return;
  const statuses = wanted.statuses.map((status) => status ?? "missing").join(" or ");
  report(
    wanted.statuses.includes(reservation?.status)
      ? "the reservation and inventory's events have different lines"
      : `the reservation is ${reservation?.status ?? "missing"}, but by inventory's events it is ${statuses}`,
  );
}

function stockHistoryOf(events: readonly EventRow[], report: (what: string) => void): StockHistory {
  const history: StockHistory = { reserved: undefined, refused: false, releases: 0, held: false };
  const decideOnce = () => {
    if (history.reserved !== undefined || history.refused) report("inventory decided twice about the order's stock");
  };
  for (const row of events) {
    switch (row.type) {
      case StockReservedSchema.typeName:
        decideOnce();
        history.reserved = quantitiesBySku(decode(StockReservedSchema, row)?.lines ?? []);
        history.held = true;
        break;
      case StockReservationFailedSchema.typeName:
        decideOnce();
        history.refused = true;
        break;
      case StockReleasedSchema.typeName: {
        history.releases++;
        const lines = quantitiesBySku(decode(StockReleasedSchema, row)?.lines ?? []);
        const held = history.held ? (history.reserved ?? []) : [];
        if (!areEqual(lines, held)) report("the lines released differ from the lines held");
        history.held = false;
        break;
      }
    }
  }
  return history;
}

/** The reservation that a history leads to; undefined stands for no row. */
function reservationAfter({ reserved, refused, releases, held }: Readonly<StockHistory>): {
  readonly statuses: readonly (ReservationRow["status"] | undefined)[];
  readonly lines: SkuQuantities;
} {
  const lines = reserved ?? [];
  if (held) return { statuses: ["HELD", "SOLD"], lines };
  if (reserved !== undefined) return { statuses: releases > 1 ? ["CANCELLED"] : ["RELEASED", "CANCELLED"], lines };
  if (releases > 0) return { statuses: ["CANCELLED"], lines };
  return { statuses: [refused ? "REFUSED" : undefined], lines };
}

function checkPaymentsEvents(check: OrderCheck): void {
  if (check.isPruned("payment")) return;
  const { paymentRow } = check.books;
  const report = (what: string) =>
    check.report("I9", what, { payment: paymentRow, outbox: check.books.payment.events });
  const [authorized, ...authorizedAgain] = check.eventsOf("payment", PaymentAuthorizedSchema);
  const [failed, ...failedAgain] = check.eventsOf("payment", PaymentFailedSchema);
  const [voided, ...voidedAgain] = check.eventsOf("payment", PaymentVoidedSchema);
  const repeated = authorizedAgain.length + failedAgain.length + voidedAgain.length;
  if (repeated > 0 || (authorized !== undefined && failed !== undefined)) {
    report("payment decided twice about the order's money");
  }
  const last = voided ?? failed ?? authorized;
  const wanted = paymentAfter(last?.type);
  if (!wanted.includes(paymentRow?.status)) {
    const statuses = wanted.map((status) => status ?? "missing").join(" or ");
    report(`the payment is ${paymentRow?.status ?? "missing"}, but by payment's events it is ${statuses}`);
    return;
  }
  checkAmounts({ paymentRow, authorized, voided }, report);
}

function checkAmounts(
  {
    paymentRow,
    authorized,
    voided,
  }: {
    readonly paymentRow: PaymentRow | undefined;
    readonly authorized: EventRow | undefined;
    readonly voided: EventRow | undefined;
  },
  report: (what: string) => void,
): void {
  const authorization = authorized === undefined ? undefined : decode(PaymentAuthorizedSchema, authorized);
  const release = voided === undefined ? undefined : decode(PaymentVoidedSchema, voided);
  if (authorization !== undefined) {
    const isRight =
      isAmount(authorization.amount, paymentRow?.amountMinor ?? null, paymentRow?.currencyCode ?? null) &&
      authorization.authorizationId === paymentRow?.authorizationId;
    if (!isRight) report("PaymentAuthorized and the payment have different amounts or authorisations");
  } else if (paymentRow?.authorizationId != null) {
    report("the payment has an authorisation, but PaymentAuthorized was never published");
  }
  if (release === undefined) return;
  if (String(release.amount?.minorUnits) !== paymentRow?.voidedMinor) {
    report("PaymentVoided and the payment have different amounts");
  }
  if (authorization !== undefined && release.amount?.minorUnits !== authorization.amount?.minorUnits) {
    report("PaymentVoided and PaymentAuthorized have different amounts");
  }
}

/** The statuses that a payment may have after the last event that it published; undefined stands for no row. */
function paymentAfter(type: string | undefined): readonly (PaymentRow["status"] | undefined)[] {
  switch (type) {
    case undefined:
      return [undefined, "NOTED", "AUTHORIZING", "VOIDING", "VOID_REFUSED"];
    case PaymentAuthorizedSchema.typeName:
      return ["AUTHORIZED", "VOIDING", "VOID_REFUSED"];
    case PaymentFailedSchema.typeName:
      return ["DECLINED", "VOIDING", "VOID_REFUSED"];
    default:
      return ["VOIDED"];
  }
}
