import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { type Order, Order_FailureReason, Order_Status } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import { sleep } from "../kit/backoff.ts";
import { say } from "./console.ts";

const finalWithinMs = 60_000;
const retryDelayMs = 500;

/** An order to place, and the final status it must get. */
interface Sample {
  readonly title: string;
  readonly lines: readonly { readonly sku: string; readonly quantity: number }[];
  readonly paymentMethod: string;
  readonly expected: string;
}

const samples: readonly Sample[] = [
  {
    title: "two SKUs, pm_ok",
    lines: [
      { sku: "sku-0001", quantity: 2 },
      { sku: "sku-0002", quantity: 1 },
    ],
    paymentMethod: "pm_ok",
    expected: "COMPLETED",
  },
  {
    title: "sku-none, pm_ok",
    lines: [{ sku: "sku-none", quantity: 1 }],
    paymentMethod: "pm_ok",
    expected: "FAILED (OUT_OF_STOCK)",
  },
  {
    title: "one SKU, pm_declined",
    lines: [{ sku: "sku-0003", quantity: 1 }],
    paymentMethod: "pm_declined",
    expected: "FAILED (PAYMENT_DECLINED)",
  },
];

/**
 * Places the sample orders through the public API and prints every status as it arrives.
 * Returns whether each got its expected final status within 60 s.
 */
export async function placeSampleOrders(orderUrl: string): Promise<boolean> {
  const client = createClient(OrderService, createConnectTransport({ baseUrl: orderUrl, httpVersion: "1.1" }));
  const results = await Promise.all(samples.map((sample) => follow(client, sample)));
  return results.every((result) => result);
}

async function follow(client: Client<typeof OrderService>, sample: Sample): Promise<boolean> {
  const deadline = AbortSignal.timeout(finalWithinMs);
  // Every attempt has the same id, so an order whose acknowledgement was lost is not placed twice.
  const requestId = crypto.randomUUID();
  const lines = sample.lines.map((line) => ({ ...line }));
  let orderId: string | undefined;
  let shown = "nothing";
  let version = 0;
  let lastError = "";
  const show = (order: Order) => {
    version = order.version;
    shown = describe(order);
    say(`Order ${order.orderId} (${sample.title}): ${shown}`);
  };
  while (!deadline.aborted) {
    try {
      if (orderId === undefined) {
        const { paymentMethod } = sample;
        const placed = await client.placeOrder({ requestId, lines, paymentMethod }, { signal: deadline });
        orderId = placed.orderId;
      }
      for await (const { event } of client.watchOrder({ orderId, afterVersion: version }, { signal: deadline })) {
        if (event.case !== "order") continue;
        show(event.value);
        if (!isFinal(event.value)) continue;
        if (shown === sample.expected) return true;
        say(`Order ${orderId} ended as ${shown} instead of ${sample.expected}.`);
        return false;
      }
    } catch (error) {
      lastError = ConnectError.from(error).message;
      await sleep(retryDelayMs, deadline);
    }
  }
  say(
    `The order of ${sample.title} was not ${sample.expected} within ${finalWithinMs / 1_000} s; last seen: ${shown}${lastError === "" ? "" : ` (${lastError})`}.`,
  );
  return false;
}

function isFinal(order: Order): boolean {
  return order.status === Order_Status.COMPLETED || order.status === Order_Status.FAILED;
}

function describe(order: Order): string {
  const status = Order_Status[order.status];
  const hasReason = order.failureReason !== Order_FailureReason.FAILURE_REASON_UNSPECIFIED;
  return hasReason ? `${status} (${Order_FailureReason[order.failureReason]})` : status;
}
