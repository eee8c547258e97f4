/**
 * `shop.order.v1.OrderService` as a function of the router, so that the same routes can be called in memory and served
 * over HTTP/1.1 and h2c.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import { type Order, Order_FailureReason, Order_Status, OrderSchema } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import { withDeadline } from "../kit/deadline.ts";
import { DomainError, UnavailableError } from "../kit/errors.ts";
import { childTraceparent } from "../kit/traceparent.ts";
import { type CommandDeps, cancelOrder, parseCancelReason } from "./commands.ts";
import type { OrderReader } from "./order-reader.ts";
import type { OrderPlacer } from "./place-orders.ts";
import { newOrder, orderPlaced, parseUuid } from "./placement.ts";
import type { PriceList } from "./prices.ts";
import type { OrderView } from "./repository.ts";
import type { OrderWatch } from "./watch.ts";

export interface RpcDeps {
  readonly placer: OrderPlacer;
  readonly prices: Pick<PriceList, "priceOf">;
  readonly readOrder: OrderReader;
  readonly watch: Pick<OrderWatch, "watch">;
  readonly commandDeps: CommandDeps;
  readonly newId: () => string;
}

/** A unary call is answered within this time, with UNAVAILABLE if need be. It also limits the first read of a watch. */
const answerDeadlineMs = 1_800;
/** Until there is authentication, all requests belong to one owner. */
const owner = "";

export function routes(deps: RpcDeps): (router: ConnectRouter) => void {
  return (router) =>
    router.service(OrderService, {
      async placeOrder(request, context) {
        const orderId = deps.newId();
        const order = newOrder(orderId, { owner, ...request }, deps.prices.priceOf);
        const event = {
          id: deps.newId(),
          aggregateId: orderId,
          message: orderPlaced(order),
          headers: {
            traceparent: childTraceparent(context.requestHeader.get("traceparent") ?? undefined),
            correlationId: order.requestId,
          },
        };
        const placed = await withAnswerDeadline((signal) => deps.placer.place({ order, event }, signal));
        return { orderId: placed.orderId, status: Order_Status[placed.status] };
      },

      async getOrder(request) {
        const orderId = parseUuid("order_id", request.orderId);
        const order = await withAnswerDeadline((signal) => deps.readOrder(orderId, signal));
        if (order === undefined) throw new DomainError("NOT_FOUND", `There is no order ${orderId}.`);
        return { order: toMessage(order) };
      },

      async cancelOrder(request) {
        const orderId = parseUuid("order_id", request.orderId);
        const reason = parseCancelReason(request.reason);
        const order = await withAnswerDeadline(() => cancelOrder(deps.commandDeps, orderId, reason));
        return { order: toMessage(order) };
      },

      async *watchOrder(request, context) {
        const orderId = parseUuid("order_id", request.orderId);
        const updates = deps.watch.watch(orderId, request.afterVersion, context.signal);
        try {
          // Only the first update has a deadline: it shows that the order exists. Later ones may take any time.
          let next = await withAnswerDeadline(() => updates.next());
          for (; !next.done; next = await updates.next()) {
            const update = next.value;
            yield "order" in update
              ? { event: { case: "order" as const, value: toMessage(update.order) } }
              : { event: { case: "heartbeat" as const, value: { sentAt: timestampFromDate(update.heartbeat) } } };
          }
        } finally {
          // Not awaited: if the read missed the deadline, it is still pending and would delay the answer.
          void updates.return(undefined).catch(() => undefined);
        }
      },
    });
}

/** The result of `work`. @throws UnavailableError after 1.8 s; the signal that `work` received is then aborted. */
function withAnswerDeadline<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const expired = new AbortController();
  return withDeadline(work(expired.signal), answerDeadlineMs, () => {
    const error = new UnavailableError(
      "There was no answer in time; try again (PlaceOrder: with the same request_id).",
    );
    expired.abort(error);
    return error;
  });
}

function toMessage(order: OrderView): Order {
  const fields: MessageInitShape<typeof OrderSchema> = {
    orderId: order.orderId,
    status: Order_Status[order.status],
    failureReason:
      order.failureReason === undefined
        ? Order_FailureReason.FAILURE_REASON_UNSPECIFIED
        : Order_FailureReason[order.failureReason],
    version: order.version,
    lines: order.lines.map(({ sku, quantity, unitPrice }) => ({ sku, quantity, unitPrice })),
    total: order.total,
    createdAt: timestampFromDate(order.createdAt),
    updatedAt: timestampFromDate(order.updatedAt),
  };
  return create(OrderSchema, fields);
}
