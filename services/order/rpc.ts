/** `shop.order.v1.OrderService`: routes as a function of the router, the same in memory, on Bun.serve and on h2c. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import { Order_FailureReason, Order_Status, OrderSchema } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import type { Queryable } from "../kit/database.ts";
import { DomainError, UnavailableError } from "../kit/errors.ts";
import { childTraceparent } from "../kit/traceparent.ts";
import { type CommandDeps, cancelOrder, parseCancelReason } from "./commands.ts";
import type { OrderPlacer } from "./place-orders.ts";
import { newOrder, orderPlaced, parseUuid } from "./placement.ts";
import type { PriceList } from "./prices.ts";
import { type OrderView, readOrders } from "./repository.ts";
import type { OrderWatch } from "./watch.ts";

export interface RpcDeps {
  readonly placer: OrderPlacer;
  readonly prices: Pick<PriceList, "priceOf">;
  readonly database: Queryable;
  readonly watch: Pick<OrderWatch, "watch">;
  readonly commands: CommandDeps;
  readonly newId: () => string;
}

/** Unary calls answer within this, if only that the database does not. */
const answerWithinMs = 1_800;
/** Until there is authentication, all requests are one owner's. */
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
        const placed = await answering((signal) => deps.placer.place({ order, event }, signal));
        return { orderId: placed.orderId, status: Order_Status[placed.status] };
      },

      async getOrder(request) {
        const orderId = parseUuid("order_id", request.orderId);
        const [order] = await answering(() => readOrders(deps.database, [orderId]));
        if (order === undefined) throw new DomainError("NOT_FOUND", `There is no order ${orderId}.`);
        return { order: toMessage(order) };
      },

      async cancelOrder(request) {
        const orderId = parseUuid("order_id", request.orderId);
        const reason = parseCancelReason(request.reason);
        const order = await answering(() => cancelOrder(deps.commands, orderId, reason));
        return { order: toMessage(order) };
      },

      async *watchOrder(request, context) {
        const orderId = parseUuid("order_id", request.orderId);
        const updates = deps.watch.watch(orderId, request.afterVersion, context.signal);
        try {
          // Only the first answer has a time limit: then it is known that the order exists.
          let next = await answering(() => updates.next());
          for (; !next.done; next = await updates.next()) {
            const update = next.value;
            yield "order" in update
              ? { event: { case: "order" as const, value: toMessage(update.order) } }
              : { event: { case: "heartbeat" as const, value: { sentAt: timestampFromDate(update.heartbeat) } } };
          }
        } finally {
          // Not awaited: it waits for a read that is under way, and whoever gave up on that has an answer to give.
          void updates.return(undefined).catch(() => undefined);
        }
      },
    });
}

/** @throws UnavailableError when `work` takes longer than a caller should wait; its signal is aborted then. */
async function answering<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const expired = new AbortController();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const error = new UnavailableError("The database did not answer in time; ask again (with the same request_id).");
    expired.abort(error);
    late.reject(error);
  }, answerWithinMs);
  const answer = work(expired.signal);
  // Its failure after the time limit has been answered already.
  answer.catch(() => undefined);
  try {
    return await Promise.race([answer, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function toMessage(order: OrderView): ReturnType<typeof create<typeof OrderSchema>> {
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
