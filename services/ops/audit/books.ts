/** An order's books: everything that the databases, the topic and the payment gateway record about one order. */
import type { InferSelectModel } from "drizzle-orm";
import { eventTable, type ServiceName } from "../../../proto/event-table.ts";
import type { InboxOutcome, inboxTable, OutboxStatus, outboxTable } from "../../../relay/tables.ts";
import type { ReservationStatus } from "../../inventory/domain.ts";
import type { Database } from "../../kit/database.ts";
import type { FailureReason, OrderStatus } from "../../order/domain.ts";
import type { orders } from "../../order/schema.ts";
import type { PaymentStatus } from "../../payment/domain.ts";
import type { payment } from "../../payment/schema.ts";
import type { OrderLedger } from "./ledger.ts";
import type { Occurrence } from "./occurrences.ts";

export type Databases = Readonly<Record<ServiceName, Database>>;

/** Quantities by SKU, sorted by SKU. */
export type SkuQuantities = readonly (readonly [sku: string, quantity: number])[];

type OrderColumns = InferSelectModel<typeof orders>;
type PaymentColumns = InferSelectModel<typeof payment>;
type OutboxColumns = InferSelectModel<ReturnType<typeof outboxTable>>;
type InboxColumns = InferSelectModel<ReturnType<typeof inboxTable>>;

/** A row of Order's. In all rows, amounts are decimal strings of minor units, so that findings can show them as JSON. */
export interface OrderRow
  extends Readonly<
    Pick<
      OrderColumns,
      | "owner"
      | "requestId"
      | "awaitsStock"
      | "awaitsPayment"
      | "version"
      | "currencyCode"
      | "paymentMethod"
      | "createdAt"
      | "updatedAt"
    >
  > {
  readonly status: OrderStatus;
  readonly failureReason: FailureReason | null;
  readonly lines: SkuQuantities;
  readonly totalMinor: string;
}

/** Inventory's row of an order. */
export interface ReservationRow {
  readonly status: Exclude<ReservationStatus, "NONE">;
  readonly lines: SkuQuantities;
}

/** Payment's row of an order. */
export interface PaymentRow
  extends Readonly<
    Pick<PaymentColumns, "currencyCode" | "authorizationId" | "refusal" | "attempts" | "nextAttemptAt">
  > {
  readonly status: Exclude<PaymentStatus, "NONE">;
  readonly amountMinor: string | null;
  readonly voidedMinor: string | null;
}

/** An event in a service's outbox or archive. */
export interface EventRow
  extends Readonly<
    Pick<
      OutboxColumns,
      "type" | "payload" | "occurredAt" | "publishedAt" | "retryCount" | "lastError" | "nextAttemptAt"
    >
  > {
  readonly eventId: string;
  /** The row's `seq`. */
  readonly sequence: number;
  readonly status: OutboxStatus;
  readonly table: "outbox" | "archive";
  /** The event that this one answers. */
  readonly causationId: string | null;
}

/** An event in a service's inbox. */
export interface InboxRow extends Readonly<Pick<InboxColumns, "eventId" | "type" | "handledAt">> {
  /** The CloudEvents source. */
  readonly source: InboxColumns["ceSource"];
  readonly outcome: InboxOutcome;
}

/** What every service records about an order, whatever its business is. */
export interface ServiceBooks {
  /** In `seq` order. */
  readonly events: readonly EventRow[];
  readonly inbox: readonly InboxRow[];
  /** The error that parked the order's key there; undefined if it is not parked. */
  readonly parked: string | undefined;
}

/** What the databases record about an order. */
export interface DatabaseBooks extends Readonly<Record<ServiceName, ServiceBooks>> {
  readonly orderId: string;
  readonly orderRow: OrderRow | undefined;
  readonly reservation: ReservationRow | undefined;
  readonly paymentRow: PaymentRow | undefined;
  /** When each database was read, by its own clock. */
  readonly readAt: Readonly<Record<ServiceName, Date>>;
}

/** What all sources record about an order. */
export interface OrderBooks extends DatabaseBooks {
  /** First occurrences, in the order of the topic. */
  readonly topic: readonly Occurrence[];
  readonly ledger: OrderLedger;
}

const publisherByType: ReadonlyMap<string, ServiceName> = new Map(
  eventTable.map(({ schema, publishedBy }) => [schema.typeName, publishedBy]),
);

/** The service that publishes events of this type; undefined if the saga has no such type. */
export function publisherOf(type: string): ServiceName | undefined {
  return publisherByType.get(type);
}

/** `OrderPlaced` for `shop.order.v1.OrderPlaced`. */
export function shortNameOf(type: string): string {
  return type.slice(type.lastIndexOf(".") + 1);
}

/** Adds up order lines by SKU; several lines may have the same SKU. */
export function quantitiesBySku(lines: readonly { readonly sku: string; readonly quantity: number }[]): SkuQuantities {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of lines) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  return [...quantities].sort(([a], [b]) => (a < b ? -1 : 1));
}
