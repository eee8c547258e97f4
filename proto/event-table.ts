/**
 * The saga, as data: every event, who publishes it, who reacts and what the reaction answers.
 * The registry of event types, the sets of types that each service handles, the README's table and what an order
 * waits for are all read from here.
 */
import { createRegistry, type DescMessage, type MessageShape, type Registry } from "@bufbuild/protobuf";
import {
  StockReleasedSchema,
  StockReservationFailedSchema,
  StockReservedSchema,
} from "./gen/shop/inventory/v1/events_pb.ts";
import {
  OrderCancelRequestedSchema,
  OrderCompletedSchema,
  OrderFailedSchema,
  OrderPlacedSchema,
} from "./gen/shop/order/v1/events_pb.ts";
import { PaymentAuthorizedSchema, PaymentFailedSchema, PaymentVoidedSchema } from "./gen/shop/payment/v1/events_pb.ts";

/** Every saga event of every service is on the one topic, keyed by order, so that one order's events have one order. */
export const sagaTopic = "shop.order-saga";

/** A service is also a folder, a consumer group and the owner of one database. */
export type ServiceName = "order" | "inventory" | "payment";

export interface Reaction {
  readonly service: ServiceName;
  /** What the service does, in a few words for people. */
  readonly effect: string;
  /** The events of which it publishes exactly one in answer; empty when it answers nothing. */
  readonly answers: readonly DescMessage[];
  /** Nobody waits for the effect: it may come a little later, together with what is urgent or with others of its kind. */
  readonly mayWait?: true;
}

interface EventDefinition {
  readonly schema: DescMessage;
  readonly publishedBy: ServiceName;
  readonly reactions: readonly Reaction[];
}

export const eventTable = [
  {
    schema: OrderPlacedSchema,
    publishedBy: "order",
    reactions: [
      {
        service: "inventory",
        effect: "reserves every line or none",
        answers: [StockReservedSchema, StockReservationFailedSchema],
      },
      { service: "payment", effect: "notes amount and payment method", answers: [], mayWait: true },
    ],
  },
  {
    schema: StockReservedSchema,
    publishedBy: "inventory",
    reactions: [
      { service: "payment", effect: "authorises the payment", answers: [PaymentAuthorizedSchema, PaymentFailedSchema] },
      { service: "order", effect: "becomes STOCK_RESERVED", answers: [] },
    ],
  },
  {
    schema: StockReservationFailedSchema,
    publishedBy: "inventory",
    reactions: [{ service: "order", effect: "becomes FAILED (OUT_OF_STOCK)", answers: [OrderFailedSchema] }],
  },
  {
    schema: PaymentAuthorizedSchema,
    publishedBy: "payment",
    reactions: [{ service: "order", effect: "becomes COMPLETED", answers: [OrderCompletedSchema] }],
  },
  {
    schema: PaymentFailedSchema,
    publishedBy: "payment",
    reactions: [
      { service: "inventory", effect: "releases the stock", answers: [StockReleasedSchema] },
      { service: "order", effect: "becomes COMPENSATING (PAYMENT_DECLINED)", answers: [] },
    ],
  },
  {
    schema: StockReleasedSchema,
    publishedBy: "inventory",
    reactions: [
      { service: "order", effect: "becomes FAILED once nothing is left to undo", answers: [OrderFailedSchema] },
    ],
  },
  {
    schema: OrderCompletedSchema,
    publishedBy: "order",
    reactions: [{ service: "inventory", effect: "turns held stock into sold stock", answers: [], mayWait: true }],
  },
  {
    schema: OrderCancelRequestedSchema,
    publishedBy: "order",
    reactions: [
      {
        service: "inventory",
        effect: "releases the stock and remembers the cancel; always answers",
        answers: [StockReleasedSchema],
      },
      {
        service: "payment",
        effect: "voids the payment and remembers the cancel; always answers",
        answers: [PaymentVoidedSchema],
      },
    ],
  },
  {
    schema: PaymentVoidedSchema,
    publishedBy: "payment",
    reactions: [{ service: "order", effect: "becomes FAILED once both answers are in", answers: [OrderFailedSchema] }],
  },
  { schema: OrderFailedSchema, publishedBy: "order", reactions: [] },
] as const satisfies readonly EventDefinition[];

type Row = (typeof eventTable)[number];

/** Any event of the saga; `$typeName` tells which. */
export type SagaEvent = MessageShape<Row["schema"]>;

/** The events that service `S` reacts to, as a union to switch over. */
export type HandledBy<S extends ServiceName> = Row extends infer R
  ? R extends { readonly schema: infer Schema extends DescMessage; readonly reactions: readonly (infer Each)[] }
    ? S extends (Each extends { readonly service: infer Name } ? Name : never)
      ? MessageShape<Schema>
      : never
    : never
  : never;

/** Every event type of the saga, for encoding and decoding. */
export const eventRegistry: Registry = createRegistry(...eventTable.map((row) => row.schema));

const definitions: readonly EventDefinition[] = eventTable;

function typesWhere(matches: (row: EventDefinition) => boolean): ReadonlySet<string> {
  return new Set(definitions.filter(matches).map((row) => row.schema.typeName));
}

/** The full names of the event types that `service` reacts to: everything else it skips undecoded. */
export function eventTypesHandledBy(service: ServiceName): ReadonlySet<string> {
  return typesWhere((row) => row.reactions.some((it) => it.service === service));
}

/** Of the types that `service` reacts to, those whose effect somebody waits for. */
export function urgentTypesFor(service: ServiceName): ReadonlySet<string> {
  return typesWhere((row) => row.reactions.some((it) => it.service === service && it.mayWait !== true));
}

/**
 * The types that are urgent for any service: the others need not hurry to the topic either. Watchers on another instance
 * of Order are hinted by the event before it (WatchOrder looks several times).
 */
export const urgentTypes: ReadonlySet<string> = typesWhere((row) => row.reactions.some((it) => it.mayWait !== true));
