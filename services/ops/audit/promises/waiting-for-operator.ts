import { serviceNames } from "../../../stack/services.ts";
import { type OrderBooks, shortNameOf } from "../books.ts";

/**
 * Why an order cannot go on without an operator: an event of it is failed, dead or discarded, its key is parked, or the
 * gateway refuses the void. No promise is broken then. Undefined if nothing holds it up.
 */
export function whyOrderWaits(books: OrderBooks): string | undefined {
  for (const service of serviceNames) {
    const { events, parked } = books[service];
    const undelivered = events.find(({ status }) => status === "FAILED" || status === "DEAD");
    if (undelivered !== undefined) {
      const { type, eventId, status, lastError } = undelivered;
      return `${service}'s ${shortNameOf(type)} ${eventId} is ${status}: ${lastError ?? ""}`;
    }
    const discarded = events.find(({ status }) => status === "DISCARDED");
    if (discarded !== undefined) {
      return `${service}'s ${shortNameOf(discarded.type)} ${discarded.eventId} was discarded`;
    }
    if (parked !== undefined) return `the key is parked at ${service}: ${parked}`;
  }
  if (books.paymentRow?.status === "VOID_REFUSED") return `the gateway refuses to void: ${books.paymentRow.refusal}`;
  return undefined;
}
