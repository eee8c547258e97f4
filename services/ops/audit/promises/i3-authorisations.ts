/** I3: the gateway holds at most one live authorisation per order, for its total, and none for a failed order. */
import { type OrderCheck, withoutPaymentMethod } from "./order-check.ts";

export function checkAuthorisations(check: OrderCheck): void {
  const { orderRow, ledger } = check.books;
  const live = ledger.authorizations.filter(({ status }) => status === "AUTHORIZED");
  const report = (what: string) => check.report("I3", what, { order: withoutPaymentMethod(orderRow), ledger });
  if (live.length > 1) report(`the gateway holds ${live.length} live authorisations`);
  if (live.length > 0 && orderRow === undefined) report("a live authorisation for an order that does not exist");
  if (live.length > 0 && orderRow?.status === "FAILED") report("a live authorisation for a failed order");
  if (orderRow?.status !== "COMPLETED") return;
  const [only] = live;
  if (only === undefined) report("no live authorisation for a completed order");
  else if (only.amountMinor !== orderRow.totalMinor || only.currency !== orderRow.currencyCode) {
    report("the authorised amount differs from the order's total");
  }
}
