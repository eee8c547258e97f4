/** Order in the model: which changes of status are legal, and what must agree with an order's status. */
import { unreachable } from "../../../services/kit/errors.ts";
import type { FailureReason, OrderMessage, OrderState } from "../../../services/order/domain.ts";
import * as domain from "../../../services/order/domain.ts";
import { shortName } from "./event-summary.ts";
import { liveAuthorizations } from "./gateway.ts";
import type { OrderSnapshot } from "./promises.ts";
import { eventsFor, type ServiceModel } from "./service-model.ts";
import { demand } from "./violation.ts";

/** The only message that may cause each failure reason. */
const reasonFor: Readonly<Partial<Record<OrderMessage["$typeName"], FailureReason>>> = {
  "shop.inventory.v1.StockReservationFailed": "OUT_OF_STOCK",
  "shop.payment.v1.PaymentFailed": "PAYMENT_DECLINED",
  CancelOrder: "CANCELLED",
  TimeOutOrder: "TIMED_OUT",
};

const statusesAfter: Readonly<Record<OrderState["status"], readonly OrderState["status"][]>> = {
  PENDING: ["STOCK_RESERVED", "COMPENSATING", "FAILED"],
  STOCK_RESERVED: ["COMPLETED", "COMPENSATING"],
  COMPENSATING: ["FAILED"],
  COMPLETED: [],
  FAILED: [],
};

export const order: ServiceModel<typeof domain, OrderState, OrderMessage> = {
  domain,
  // Placing an order is its first transaction, so the row exists from the start.
  initialRow: (_, orderId) => ({ orderId, version: 1, status: "PENDING" }),
  commit({ decide, evolve, toEvent }, before, message, stock) {
    const facts = decide(before, message);
    const after = facts.reduce(evolve, before);
    checkChange(before, message, after);
    return { after, published: eventsFor(before.orderId, facts, toEvent), stock };
  },
  check,
};

function checkChange(before: OrderState, message: OrderMessage, after: OrderState): void {
  if (after.status === before.status) {
    demand(after.version === before.version, "the version changed although the status did not");
  } else {
    demand(statusesAfter[before.status].includes(after.status), `${before.status} became ${after.status}`);
    demand(after.version === before.version + 1, "the status changed, but the version did not grow by 1");
  }
  const isOpen = before.status === "PENDING" || before.status === "STOCK_RESERVED";
  if (isOpen && (message.$typeName === "CancelOrder" || message.$typeName === "TimeOutOrder")) {
    demand(after.status === "COMPENSATING", `${message.$typeName} left an open order ${after.status}`);
  }
  if ("failureReason" in before) {
    demand("failureReason" in after && after.failureReason === before.failureReason, "the failure reason changed");
  } else if ("failureReason" in after) {
    demand(
      after.failureReason === reasonFor[message.$typeName],
      `${shortName(message)} failed the order as ${after.failureReason}`,
    );
  }
}

function check({ placed, rows, account, events }: OrderSnapshot): void {
  const { status } = rows.order;
  const stock = rows.inventory.status;
  const final = status === "COMPLETED" || status === "FAILED" ? status : undefined;
  demand(
    events.final === final,
    `I5: the order is ${status}, but the final event says ${events.final ?? "nothing, because there is none"}`,
  );
  const live = liveAuthorizations(account);
  switch (status) {
    case "COMPLETED":
      demand(
        live.length === 1 && live[0]?.amount === (placed.total?.minorUnits ?? 0n),
        "I3: the order is COMPLETED, but its total is not authorised",
      );
      demand(stock === "HELD" || stock === "SOLD", `I5: the order is COMPLETED, but its stock is ${stock}`);
      return;
    case "FAILED":
      demand(live.length === 0, "I3: the order is FAILED, but the gateway still holds an authorisation");
      demand(stock !== "HELD" && stock !== "SOLD", `I5: the order is FAILED, but its stock is ${stock}`);
      return;
    case "PENDING":
    case "STOCK_RESERVED":
    case "COMPENSATING":
      demand(stock !== "SOLD", `I2: the stock is SOLD, but the order is ${status}`);
      return;
    default:
      unreachable(status);
  }
}
