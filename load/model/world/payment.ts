/** Payment in the model: what must agree with a payment, in the published events and at the gateway. */
import { unreachable } from "../../../services/kit/errors.ts";
import type { PaymentMessage, PaymentState } from "../../../services/payment/domain.ts";
import * as domain from "../../../services/payment/domain.ts";
import { liveAuthorizations } from "./gateway.ts";
import type { OrderSnapshot } from "./promises.ts";
import { eventsFor, type ServiceModel } from "./service-model.ts";
import { demand } from "./violation.ts";

export const payment: ServiceModel<typeof domain, PaymentState, PaymentMessage> = {
  domain,
  initialRow: ({ noPayment }, orderId) => noPayment(orderId),
  commit({ decide, evolve, toEvent }, before, message, stock) {
    const facts = decide(before, message);
    return { after: facts.reduce(evolve, before), published: eventsFor(before.orderId, facts, toEvent), stock };
  },
  check,
};

function check({ placed, rows, account, events }: OrderSnapshot): void {
  const row = rows.payment;
  const { status } = row;
  const isHeldAtGateway = liveAuthorizations(account).length > 0;
  const disagrees = `I9: the payment is ${status}, but the published events say otherwise`;
  switch (status) {
    case "NONE":
    case "NOTED":
    case "AUTHORIZING":
      demand(events.authorized === undefined && !events.declined && events.voided === undefined, disagrees);
      return;
    case "AUTHORIZED":
      demand(events.authorized === (placed.total?.minorUnits ?? 0n), disagrees);
      demand(isHeldAtGateway, "I9: the payment is AUTHORIZED, but the gateway holds no authorisation");
      return;
    case "DECLINED":
      demand(events.declined && events.authorized === undefined, disagrees);
      demand(!isHeldAtGateway, "I9: the payment is DECLINED, but the gateway holds an authorisation");
      return;
    case "VOIDING":
    case "VOID_REFUSED":
      demand(events.voided === undefined, "I9: PaymentVoided was published before the gateway confirmed the void");
      return;
    case "VOIDED":
      demand(
        events.voided === (account.void?.amount ?? 0n),
        "I9: the amount in PaymentVoided is not the amount that the gateway voided",
      );
      demand(row.voidedAmount.minorUnits === events.voided, disagrees);
      demand(!isHeldAtGateway, "I9: the payment is VOIDED, but the gateway holds an authorisation");
      return;
    default:
      unreachable(status);
  }
}
