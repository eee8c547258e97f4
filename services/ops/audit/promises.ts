/**
 * The promises of one order, as pure checks on what all sources know of it. Each holds at every moment of an order's
 * life, in flight too, provided that the sources were read at one moment; where they were not, it is read again.
 */
import { type DescMessage, fromJsonString, type MessageShape } from "@bufbuild/protobuf";
import { eventTable, eventTypesHandledBy, type ServiceName } from "../../../proto/event-table.ts";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "../../../proto/gen/shop/inventory/v1/events_pb.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderFailedSchema,
  OrderPlacedSchema,
} from "../../../proto/gen/shop/order/v1/events_pb.ts";
import { Order_FailureReason } from "../../../proto/gen/shop/order/v1/order_pb.ts";
import {
  PaymentAuthorizedSchema,
  PaymentFailedSchema,
  PaymentVoidedSchema,
} from "../../../proto/gen/shop/payment/v1/events_pb.ts";
import type { Money } from "../../../proto/gen/shop/type/v1/money_pb.ts";
import { isFinal } from "../../order/domain.ts";
import {
  type EventRow,
  type OrderBooks,
  type OrderRow,
  type PaymentRow,
  type Pieces,
  piecesOf,
  publisherOf,
  type ReservationRow,
  services,
} from "./books.ts";

/** The promises of design §8 that rows can show; I8 is about what a watcher sees, and is tested. */
export const promises = {
  I1: "an acknowledged order exists; one request of one owner makes one order",
  I2: "per SKU: initial = available + held + sold, as reserved, sold and completed",
  I3: "at the gateway: at most one live authorisation, of the total; none for a failed order",
  I4: "every order gets to its end, every event to its readers, in time",
  I5: "one final event; COMPLETED is sold and authorised, FAILED is released and voided",
  I6: "on the topic each publisher's events of an order are in order, with no gap",
  I7: "an event has its effect once",
  I9: "what a service published agrees with its rows",
} as const;

export type PromiseId = keyof typeof promises;
export const promiseIds = Object.keys(promises) as readonly PromiseId[];

/** A promise that is not kept, with the rows that show it. */
export interface Finding {
  readonly promise: PromiseId;
  /** An order, a SKU or a request. */
  readonly subject: string;
  readonly what: string;
  readonly rows: Readonly<Record<string, unknown>>;
}

/** What a check has to know beside the order's own books. */
export interface Surroundings {
  /** What is not done after this time is overdue. */
  readonly overdueAfterMs: number;
  /** What was published before may have expired on the topic. */
  readonly retainedSince: Date;
  /** The next offset that each service will read, by partition; read before the inboxes were. */
  readonly committed: Readonly<Record<ServiceName, ReadonlyMap<number, number>>>;
  /** The first event that each service still has, in outbox or archive: what was before has been pruned. */
  readonly oldest: Readonly<Record<ServiceName, OldestEvent>>;
}

export interface OldestEvent {
  /** 1 where nothing was pruned; Infinity where there is no event. */
  readonly sequence: number;
  readonly occurredAt: Date;
}

export interface Verdict {
  readonly findings: readonly Finding[];
  /** Why the order need not get to its end: a frozen key and so on. Undefined where nothing is in its way. */
  readonly hindrance: string | undefined;
}

/** What is wrong with an order. */
export function judge(books: OrderBooks, surroundings: Surroundings): Verdict {
  const findings: Finding[] = [];
  const report: Report = (promise, what, rows) => findings.push({ promise, subject: books.orderId, what, rows });
  const hindrance = hindranceOf(books);
  judgeExistence(books, surroundings, report);
  judgeMoney(books, report);
  if (hindrance === undefined) judgeProgress(books, surroundings, report);
  judgeEnd(books, surroundings, report);
  for (const service of services) {
    judgeSequence(books, service, surroundings, report);
    judgeAnswers(books, service, surroundings, report);
    judgeDelivery(books, service, surroundings, report);
  }
  judgeVersion(books, surroundings, report);
  judgeOrdersAccount(books, report);
  judgeInventorysAccount(books, surroundings, report);
  judgePaymentsAccount(books, surroundings, report);
  return { findings, hindrance };
}

type Report = (promise: PromiseId, what: string, rows: Readonly<Record<string, unknown>>) => void;

/** Order keeps every event of the topic, the others those that they react to. */
const recordedTypes: Readonly<Record<ServiceName, ReadonlySet<string>>> = {
  order: new Set(eventTable.map(({ schema }) => schema.typeName)),
  inventory: eventTypesHandledBy("inventory"),
  payment: eventTypesHandledBy("payment"),
};

function of<Schema extends DescMessage>(books: OrderBooks, service: ServiceName, schema: Schema): readonly EventRow[] {
  return books[service].events.filter(({ type }) => type === schema.typeName);
}

function read<Schema extends DescMessage>(schema: Schema, row: EventRow): MessageShape<Schema> | undefined {
  try {
    return fromJsonString(schema, row.payload, { ignoreUnknownFields: true });
  } catch {
    // It never got out, and is among the dead ones.
    return undefined;
  }
}

/** The databases' clocks agree to this. */
const clockSkewMaxMs = 1_000;

/**
 * Events of this order may have been pruned from the service's archive: all up to some moment were. Nothing else tells of
 * pruning than that the oldest rows are not there, so the loss of those alone passes for it.
 */
function isPruned({ orderRow }: OrderBooks, service: ServiceName, { oldest }: Surroundings): boolean {
  const { sequence, occurredAt } = oldest[service];
  if (sequence <= 1 || sequence === Number.POSITIVE_INFINITY) return false;
  return orderRow === undefined || orderRow.createdAt.getTime() <= occurredAt.getTime() + clockSkewMaxMs;
}

function hindranceOf(books: OrderBooks): string | undefined {
  for (const service of services) {
    const { events, parked } = books[service];
    const stuck = events.find(({ status }) => status === "FAILED" || status === "DEAD");
    if (stuck !== undefined) {
      return `${service}'s ${shortNameOf(stuck.type)} ${stuck.eventId} is ${stuck.status}: ${stuck.lastError ?? ""}`;
    }
    const discarded = events.find(({ status }) => status === "DISCARDED");
    if (discarded !== undefined)
      return `${service}'s ${shortNameOf(discarded.type)} ${discarded.eventId} was discarded`;
    if (parked !== undefined) return `the key is parked at ${service}: ${parked}`;
  }
  if (books.paymentRow?.status === "VOID_REFUSED") return `the gateway refuses to void: ${books.paymentRow.refusal}`;
  return undefined;
}

/** `OrderPlaced` of `shop.order.v1.OrderPlaced`. */
export function shortNameOf(type: string): string {
  return type.slice(type.lastIndexOf(".") + 1);
}

// I1

function judgeExistence(books: OrderBooks, surroundings: Surroundings, report: Report): void {
  const { orderRow, reservation, paymentRow, topic } = books;
  if (orderRow === undefined) {
    const traces = {
      ...(reservation === undefined ? {} : { reservation }),
      ...(paymentRow === undefined ? {} : { payment: paymentRow }),
      ...(topic.some(({ source }) => isOurs(source)) ? { topic } : {}),
      ...(books.ledger.authorizations.length === 0 ? {} : { ledger: books.ledger }),
      ...Object.fromEntries(
        services.flatMap((service) =>
          books[service].events.length === 0 ? [] : [[`${service} outbox`, books[service].events.map(shown)]],
        ),
      ),
    };
    if (Object.keys(traces).length > 0) report("I1", "others know of an order that Order does not have", traces);
    return;
  }
  const placed = of(books, "order", OrderPlacedSchema);
  if (placed.length === 1 || (placed.length === 0 && isPruned(books, "order", surroundings))) return;
  report("I1", `the order has ${placed.length} OrderPlaced`, {
    order: shownOrder(orderRow),
    outbox: placed.map(shown),
  });
}

function isOurs(source: string): boolean {
  return services.some((service) => source === sourceOf(service));
}

/** The CloudEvents source that the relay gives a service's events. */
function sourceOf(service: ServiceName): string {
  return `/shop/${service}`;
}

/** An event as evidence: a payload may hold payment details. */
function shown({ payload: _, ...row }: EventRow) {
  return row;
}

function shownOrder(row: OrderRow | undefined) {
  if (row === undefined) return undefined;
  const { paymentMethod: _, ...rest } = row;
  return rest;
}

// I3

function judgeMoney({ orderRow, ledger }: OrderBooks, report: Report): void {
  const live = ledger.authorizations.filter(({ status }) => status === "AUTHORIZED");
  const rows = { order: shownOrder(orderRow), ledger };
  if (live.length > 1) report("I3", `${live.length} live authorisations`, rows);
  if (live.length > 0 && orderRow === undefined) report("I3", "a live authorisation for no order", rows);
  if (live.length > 0 && orderRow?.status === "FAILED") report("I3", "a live authorisation for a failed order", rows);
  if (orderRow?.status !== "COMPLETED") return;
  const [only] = live;
  if (only === undefined) report("I3", "no live authorisation for a completed order", rows);
  else if (only.amountMinor !== orderRow.totalMinor || only.currency !== orderRow.currencyCode) {
    report("I3", "another amount was authorised than the order's total", rows);
  }
}

// I4

function judgeProgress(books: OrderBooks, { overdueAfterMs }: Surroundings, report: Report): void {
  const { orderRow, readAt } = books;
  if (orderRow !== undefined && !isFinal(orderRow.status)) {
    const ageMs = readAt.order.getTime() - orderRow.createdAt.getTime();
    if (ageMs > overdueAfterMs)
      report("I4", `${orderRow.status} since ${seconds(ageMs)} s`, { order: shownOrder(orderRow) });
  }
  for (const service of services) {
    for (const row of books[service].events) {
      const ageMs = readAt[service].getTime() - (row.publishedAt ?? row.occurredAt).getTime();
      if (ageMs <= overdueAfterMs) continue;
      const name = shortNameOf(row.type);
      if (row.status !== "PUBLISHED") {
        report("I4", `${name} is not published since ${seconds(ageMs)} s`, { [`${service} outbox`]: shown(row) });
        continue;
      }
      for (const reader of services) {
        if (!recordedTypes[reader].has(row.type)) continue;
        if (books[reader].inbox.some(({ eventId }) => eventId === row.eventId)) continue;
        report("I4", `${reader} has not handled ${name} since ${seconds(ageMs)} s`, {
          [`${service} outbox`]: shown(row),
        });
      }
    }
  }
}

function seconds(ms: number): number {
  return Math.round(ms / 1_000);
}

// I5

function judgeEnd(books: OrderBooks, surroundings: Surroundings, report: Report): void {
  const { orderRow } = books;
  if (orderRow === undefined) return;
  const { status } = orderRow;
  const final = {
    COMPLETED: of(books, "order", OrderCompletedSchema),
    FAILED: of(books, "order", OrderFailedSchema),
  };
  const wanted = isPruned(books, "order", surroundings) ? undefined : 1;
  for (const end of ["COMPLETED", "FAILED"] as const) {
    const count = final[end].length;
    if (count === 0 ? status === end && wanted === 1 : status !== end || count > 1) {
      report("I5", `${status} with ${final.COMPLETED.length} OrderCompleted and ${final.FAILED.length} OrderFailed`, {
        order: shownOrder(orderRow),
        outbox: [...final.COMPLETED, ...final.FAILED].map(shown),
      });
      break;
    }
  }
  if (status === "COMPLETED") judgeCompleted(books, report);
  if (status === "FAILED") judgeFailed(books, surroundings, report);
}

function judgeCompleted(books: OrderBooks, report: Report): void {
  const { orderRow, reservation, paymentRow } = books;
  const isTold = books.inventory.inbox.some(
    ({ type, outcome }) => type === OrderCompletedSchema.typeName && outcome !== "PARKED",
  );
  // Until inventory has heard of it, what is sold is still held.
  const isKept = reservation?.status === "SOLD" || (reservation?.status === "HELD" && !isTold);
  if (reservation === undefined || !isKept) {
    report("I5", `COMPLETED, and its stock is ${reservation?.status ?? "not reserved"}`, {
      order: shownOrder(orderRow),
      reservation,
    });
  } else if (orderRow !== undefined && !isSame(reservation.lines, orderRow.lines)) {
    report("I5", "COMPLETED, and other lines are sold than were ordered", { order: shownOrder(orderRow), reservation });
  }
  if (paymentRow?.status !== "AUTHORIZED") {
    report("I5", "COMPLETED, and its payment is not AUTHORIZED", { order: shownOrder(orderRow), payment: paymentRow });
  }
}

const mayBeCharged: ReadonlySet<string> = new Set(["AUTHORIZED", "AUTHORIZING", "VOIDING", "VOID_REFUSED"]);

function judgeFailed(books: OrderBooks, surroundings: Surroundings, report: Report): void {
  const { orderRow, reservation, paymentRow } = books;
  if (orderRow === undefined) return;
  const rows = { order: shownOrder(orderRow), reservation, payment: paymentRow };
  if (reservation?.status === "HELD" || reservation?.status === "SOLD") {
    report("I5", `FAILED, and its stock is ${reservation.status}`, rows);
  }
  if (paymentRow !== undefined && mayBeCharged.has(paymentRow.status)) {
    report("I5", `FAILED, and its payment is ${paymentRow.status}`, rows);
  }
  const { failureReason } = orderRow;
  const cancelled = failureReason === "TIMED_OUT" || failureReason === "CANCELLED";
  const undone = [
    { service: "inventory", schema: StockReleasedSchema, wanted: cancelled || failureReason === "PAYMENT_DECLINED" },
    { service: "payment", schema: PaymentVoidedSchema, wanted: cancelled },
  ] as const;
  for (const { service, schema, wanted } of undone) {
    if (!wanted || isPruned(books, service, surroundings) || of(books, service, schema).length > 0) continue;
    report("I5", `FAILED (${failureReason}), and ${service} never said ${shortNameOf(schema.typeName)}`, rows);
  }
}

function isSame(a: Pieces, b: Pieces): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

// I6

function judgeSequence(books: OrderBooks, service: ServiceName, surroundings: Surroundings, report: Report): void {
  const { events } = books[service];
  const occurrences = books.topic.filter(({ source }) => source === sourceOf(service));
  const rowById = new Map(events.map((row) => [row.eventId, row]));
  const evidence = { topic: occurrences, [`${service} outbox`]: events.map(shown) };
  if (rowById.size < events.length) report("I6", `an event is in ${service}'s outbox and archive at once`, evidence);
  let last = -1;
  for (const { eventId, type, sequence } of occurrences) {
    const name = `${service}'s ${shortNameOf(type)} ${eventId}`;
    if (sequence <= last) report("I6", `${name} came after a later event`, evidence);
    last = Math.max(last, sequence);
    const row = rowById.get(eventId);
    if (row === undefined ? sequence >= surroundings.oldest[service].sequence : row.sequence !== sequence) {
      report("I6", `${name} is on the topic, and no row of ${service}'s is like it`, evidence);
    }
  }
  const onTopic = new Set(occurrences.map(({ eventId }) => eventId));
  for (const row of events) {
    if (onTopic.has(row.eventId) || row.status === "DISCARDED") continue;
    const name = `${service}'s ${shortNameOf(row.type)} ${row.eventId}`;
    if (row.status !== "PUBLISHED") {
      if (row.sequence < last) report("I6", `${name} was overtaken by a later event`, evidence);
    } else if (row.publishedAt !== null && row.publishedAt > surroundings.retainedSince) {
      report("I6", `${name} is PUBLISHED, and not on the topic`, evidence);
    }
  }
}

// I7

/** One answer to an event at the most, and none to an event that was not handled. */
function judgeAnswers(books: OrderBooks, service: ServiceName, surroundings: Surroundings, report: Report): void {
  const { events, inbox } = books[service];
  const answersByCause = new Map<string, EventRow[]>();
  for (const row of events) {
    if (row.causationId === null) continue;
    answersByCause.set(row.causationId, [...(answersByCause.get(row.causationId) ?? []), row]);
  }
  for (const [cause, answers] of answersByCause) {
    const evidence = { [`${service} outbox`]: answers.map(shown), [`${service} inbox`]: inbox };
    if (answers.length > 1) report("I7", `${service} answered ${cause} ${answers.length} times`, evidence);
    if (!inbox.some(({ eventId, outcome }) => eventId === cause && outcome === "HANDLED")) {
      report("I7", `${service} answered ${cause}, which it has not handled`, evidence);
    }
  }
  for (const row of inbox) {
    const publisher = publisherOf(row.type);
    if (publisher === undefined || isPruned(books, publisher, surroundings)) continue;
    if (books[publisher].events.some(({ eventId }) => eventId === row.eventId)) continue;
    report("I7", `${service} handled ${row.eventId}, which ${publisher} has not written`, {
      [`${service} inbox`]: row,
      [`${publisher} outbox`]: books[publisher].events.map(shown),
    });
  }
}

/** Whoever has read past an event has handled it. */
function judgeDelivery(books: OrderBooks, reader: ServiceName, { committed }: Surroundings, report: Report): void {
  const { inbox, parked } = books[reader];
  if (parked !== undefined) return;
  const known = new Set(inbox.map(({ eventId }) => eventId));
  for (const occurrence of books.topic) {
    if (!recordedTypes[reader].has(occurrence.type) || known.has(occurrence.eventId)) continue;
    const position = committed[reader].get(occurrence.partition) ?? 0;
    if (position <= occurrence.offset) continue;
    report("I7", `${reader} has passed ${shortNameOf(occurrence.type)} ${occurrence.eventId}, and not handled it`, {
      topic: occurrence,
      position,
      [`${reader} inbox`]: inbox,
    });
  }
}

/** Every change of status has its event: one that Order handled, or one that it published. */
function judgeVersion(books: OrderBooks, surroundings: Surroundings, report: Report): void {
  const { orderRow } = books;
  if (orderRow === undefined || isPruned(books, "order", surroundings)) return;
  const handled = [StockReservedSchema, PaymentFailedSchema].map(({ typeName }) => typeName) as readonly string[];
  const published = [OrderCancelRequestedSchema, OrderCompletedSchema, OrderFailedSchema];
  const changes =
    books.order.inbox.filter(({ type, outcome }) => handled.includes(type) && outcome === "HANDLED").length +
    published.reduce((sum, schema) => sum + of(books, "order", schema).length, 0);
  if (orderRow.version === 1 + changes) return;
  report("I7", `version ${orderRow.version} after ${changes} changes of status`, {
    order: shownOrder(orderRow),
    inbox: books.order.inbox,
    outbox: books.order.events.map(shown),
  });
}

// I9

function judgeOrdersAccount(books: OrderBooks, report: Report): void {
  const { orderRow } = books;
  if (orderRow === undefined) return;
  const disagree = (row: EventRow, with_: string) =>
    report("I9", `${shortNameOf(row.type)} and the order disagree about ${with_}`, {
      order: shownOrder(orderRow),
      outbox: shown(row),
    });
  for (const row of of(books, "order", OrderPlacedSchema)) {
    const event = read(OrderPlacedSchema, row);
    if (event === undefined) continue;
    if (!isSame(piecesOf(event.lines), orderRow.lines)) disagree(row, "the lines");
    if (!isAmount(event.total, orderRow.totalMinor, orderRow.currencyCode)) disagree(row, "the total");
    if (event.paymentMethod !== orderRow.paymentMethod) disagree(row, "the payment method");
  }
  for (const schema of [OrderCancelRequestedSchema, OrderFailedSchema]) {
    for (const row of of(books, "order", schema)) {
      const event = read(schema, row);
      if (event !== undefined && Order_FailureReason[event.reason] !== orderRow.failureReason)
        disagree(row, "the reason");
    }
  }
  const isEnd = ({ type }: EventRow) => type === OrderCompletedSchema.typeName || type === OrderFailedSchema.typeName;
  const end = books.order.events.findIndex(isEnd);
  const later = end === -1 ? undefined : books.order.events[end + 1];
  // A second final event is counted elsewhere.
  if (later !== undefined && !isEnd(later)) disagree(later, "its end, which had been told before");
}

function isAmount(money: Money | undefined, minorUnits: string | null, currencyCode: string | null): boolean {
  return money !== undefined && String(money.minorUnits) === minorUnits && money.currencyCode === currencyCode;
}

/** Adds up what inventory said of an order, and compares it with what it did. */
function judgeInventorysAccount(books: OrderBooks, surroundings: Surroundings, report: Report): void {
  if (isPruned(books, "inventory", surroundings)) return;
  const { reservation } = books;
  const { events } = books.inventory;
  const wrong = (what: string) => report("I9", what, { reservation, outbox: events });
  let reserved: Pieces | undefined;
  let refused = false;
  let released = 0;
  let held = false;
  for (const row of events) {
    switch (row.type) {
      case StockReservedSchema.typeName:
        if (reserved !== undefined || refused) wrong("inventory decided twice on an order's stock");
        reserved = piecesOf(read(StockReservedSchema, row)?.lines ?? []);
        held = true;
        break;
      case StockReservationFailedSchema.typeName:
        if (reserved !== undefined || refused) wrong("inventory decided twice on an order's stock");
        refused = true;
        break;
      case StockReleasedSchema.typeName: {
        released++;
        const lines = piecesOf(read(StockReleasedSchema, row)?.lines ?? []);
        if (held ? !isSame(lines, reserved ?? []) : lines.length > 0) wrong("other lines were released than were held");
        held = false;
        break;
      }
    }
  }
  const wanted = reservationAfter({ reserved, refused, released, held });
  if (wanted.statuses.includes(reservation?.status) && isSame(reservation?.lines ?? [], wanted.lines)) return;
  wrong(
    `the reservation is ${reservation?.status ?? "missing"}, and by its events would be ${wanted.statuses.join(" or ")}`,
  );
}

/** What the reservation is after what inventory said. */
function reservationAfter(said: {
  readonly reserved: Pieces | undefined;
  readonly refused: boolean;
  readonly released: number;
  readonly held: boolean;
}): { readonly statuses: readonly (ReservationRow["status"] | undefined)[]; readonly lines: Pieces } {
  const lines = said.reserved ?? [];
  if (said.held) return { statuses: ["HELD", "SOLD"], lines };
  if (said.reserved !== undefined)
    return { statuses: said.released > 1 ? ["CANCELLED"] : ["RELEASED", "CANCELLED"], lines };
  if (said.released > 0) return { statuses: ["CANCELLED"], lines };
  return { statuses: [said.refused ? "REFUSED" : undefined], lines };
}

/** Adds up what payment said of an order, and compares it with what it did. */
function judgePaymentsAccount(books: OrderBooks, surroundings: Surroundings, report: Report): void {
  if (isPruned(books, "payment", surroundings)) return;
  const { paymentRow } = books;
  const { events } = books.payment;
  const wrong = (what: string) => report("I9", what, { payment: paymentRow, outbox: events });
  const [authorized, ...authorizedAgain] = of(books, "payment", PaymentAuthorizedSchema);
  const [failed, ...failedAgain] = of(books, "payment", PaymentFailedSchema);
  const [voided, ...voidedAgain] = of(books, "payment", PaymentVoidedSchema);
  const again = authorizedAgain.length + failedAgain.length + voidedAgain.length;
  if (again > 0 || (authorized !== undefined && failed !== undefined))
    wrong("payment decided twice on an order's money");

  const last = voided ?? failed ?? authorized;
  const wanted = paymentAfter(last?.type);
  if (!wanted.includes(paymentRow?.status)) {
    wrong(`the payment is ${paymentRow?.status ?? "missing"}, and by its events would be ${wanted.join(" or ")}`);
    return;
  }
  const authorization = authorized === undefined ? undefined : read(PaymentAuthorizedSchema, authorized);
  const release = voided === undefined ? undefined : read(PaymentVoidedSchema, voided);
  if (authorization !== undefined) {
    const isRight =
      isAmount(authorization.amount, paymentRow?.amountMinor ?? null, paymentRow?.currencyCode ?? null) &&
      authorization.authorizationId === paymentRow?.authorizationId;
    if (!isRight) wrong("PaymentAuthorized and the payment disagree");
  } else if (paymentRow?.authorizationId != null) {
    wrong("the payment has an authorisation that was never told");
  }
  if (release === undefined) return;
  if (String(release.amount?.minorUnits) !== paymentRow?.voidedMinor) wrong("PaymentVoided and the payment disagree");
  if (authorization !== undefined && release.amount?.minorUnits !== authorization.amount?.minorUnits) {
    wrong("another amount was voided than was authorised");
  }
}

/** What a payment can be after the last thing that it said. */
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
