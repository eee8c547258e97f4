/**
 * The saga as data: every event, which service publishes it, which services react, and what they publish in answer.
 * The registry of event types, the types that each service handles, the README's table and `ops stuck` all read it.
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

/** The one topic of all services. Its key is the order's id, so the events of one order keep their order. */
export const sagaTopic = "shop.order-saga";

/**
 * The services of the saga. Each name is also that of a folder in `services/`, a Protobuf package, a consumer group and a
 * database. `services/stack/services.ts` says how each one is run.
 */
export type ServiceName = "order" | "inventory" | "payment";

export interface Reaction {
  readonly service: ServiceName;
  /** What the service does, in a few words, for documents and operators. */
  readonly effect: string;
  /** It publishes exactly one of these in answer; nothing if the list is empty. */
  readonly answers: readonly DescMessage[];
  /**
   * No other step and no client waits for the effect. The consumer may handle it a little later, in one batch with other
   * records, which saves transactions.
   */
  readonly deferrable?: true;
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
      { service: "payment", effect: "notes amount and payment method", answers: [], deferrable: true },
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
    reactions: [{ service: "inventory", effect: "turns held stock into sold stock", answers: [], deferrable: true }],
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

/** Any event of the saga; switch over `$typeName`. */
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

/** The full names of the event types that `service` reacts to. It skips all others without decoding them. */
export function eventTypesHandledBy(service: ServiceName): ReadonlySet<string> {
  return typesWhere((row) => row.reactions.some((it) => it.service === service));
}

/** The types that `service` reacts to and must not defer. */
export function urgentTypesFor(service: ServiceName): ReadonlySet<string> {
  return typesWhere((row) => row.reactions.some((it) => it.service === service && it.deferrable !== true));
}

/**
 * The types that are urgent for at least one service; only these wake the relay. `OrderCompleted` is not among them although
 * clients watch for it: Order's instances learn of the change from the event before it, after which WatchOrder re-reads the
 * row several times.
 */
export const urgentTypes: ReadonlySet<string> = typesWhere((row) => row.reactions.some((it) => it.deferrable !== true));
