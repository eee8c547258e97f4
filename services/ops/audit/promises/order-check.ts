import { type DescMessage, fromJsonString, type MessageShape } from "@bufbuild/protobuf";
import { eventTable, eventTypesHandledBy, type ServiceName } from "../../../../proto/event-table.ts";
import { byService } from "../../../stack/services.ts";
import type { EventRow, OrderBooks, OrderRow, SkuQuantities } from "../books.ts";
import type { PromiseId } from "./promises.ts";

/** A broken promise, with the rows that show it. */
export interface Finding {
  readonly promise: PromiseId;
  /** An order, a SKU or a request. */
  readonly subject: string;
  /** What is wrong. */
  readonly what: string;
  readonly rows: Readonly<Record<string, unknown>>;
}

/** What the checks need to know besides an order's own books. */
export interface AuditContext {
  /** Anything unfinished after this time is overdue. */
  readonly overdueAfterMs: number;
  /** Records that were published before this may have expired on the topic. */
  readonly retainedSince: Date;
  /** Each service's next offset by partition; read before the inboxes were. */
  readonly committed: Readonly<Record<ServiceName, ReadonlyMap<number, number>>>;
  /** The oldest event that each service still has. Earlier ones have been pruned. */
  readonly oldest: Readonly<Record<ServiceName, OldestEvent>>;
}

/** The oldest event in a service's outbox and archive. */
export interface OldestEvent {
  /** 1 if nothing was pruned; Infinity if there is no event. */
  readonly sequence: number;
  readonly occurredAt: Date;
}

/** The databases' clocks differ by at most this. */
const clockSkewMaxMs = 1_000;

/** An order under check, with the findings so far. */
export class OrderCheck {
  readonly findings: Finding[] = [];

  constructor(
    readonly books: OrderBooks,
    readonly context: AuditContext,
  ) {}

  report(promise: PromiseId, what: string, rows: Finding["rows"]): void {
    this.findings.push({ promise, subject: this.books.orderId, what, rows });
  }

  /** The order's events of one type in the outbox or archive of its publisher. */
  eventsOf(service: ServiceName, schema: DescMessage): readonly EventRow[] {
    return this.books[service].events.filter(({ type }) => type === schema.typeName);
  }

  /**
   * Whether events of this order may have been pruned from the service's archive. Pruning removes all events up to some
   * moment, and only their absence shows it; so a loss of the oldest events looks like pruning.
   */
  isPruned(service: ServiceName): boolean {
    const { sequence, occurredAt } = this.context.oldest[service];
    if (sequence <= 1 || sequence === Number.POSITIVE_INFINITY) return false;
    const { orderRow } = this.books;
    return orderRow === undefined || orderRow.createdAt.getTime() <= occurredAt.getTime() + clockSkewMaxMs;
  }
}

/** The event types that each service keeps in its inbox. Order keeps every type, for the timeline and for `stuck`. */
export const recordedTypes: Readonly<Record<ServiceName, ReadonlySet<string>>> = byService((service) =>
  service === "order" ? new Set(eventTable.map(({ schema }) => schema.typeName)) : eventTypesHandledBy(service),
);

/** The CloudEvents source that the relay gives to a service's events. */
export function sourceOf(service: ServiceName): string {
  return `/shop/${service}`;
}

/** Undefined if the payload does not decode: the event was then never sent, and the relay has made it dead. */
export function decode<Schema extends DescMessage>(schema: Schema, row: EventRow): MessageShape<Schema> | undefined {
  try {
    return fromJsonString(schema, row.payload, { ignoreUnknownFields: true });
  } catch {
    return undefined;
  }
}

/** An event as evidence. Its payload may hold payment details, which do not belong in a report. */
export function withoutPayload({ payload: _, ...row }: EventRow) {
  return row;
}

/** Order's row as evidence, without the payment method. */
export function withoutPaymentMethod(row: OrderRow | undefined) {
  if (row === undefined) return undefined;
  const { paymentMethod: _, ...rest } = row;
  return rest;
}

export function areEqual(a: SkuQuantities, b: SkuQuantities): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
