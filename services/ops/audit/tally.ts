import { isFinal } from "../../order/domain.ts";
import { serviceNames } from "../../stack/services.ts";
import type { OrderBooks } from "./books.ts";
import type { Finding } from "./promises/order-check.ts";
import { type PromiseId, promiseIds, promises } from "./promises/promises.ts";
import type { AuditReport } from "./report.ts";

/** Counts what an audit checks and finds. */
export class Tally {
  readonly checked = byPromise(() => 0);
  readonly #broken = byPromise(() => 0);
  readonly #findings = byPromise((): Finding[] => []);
  readonly #hindered: { orderId: string; why: string }[] = [];
  #hinderedCount = 0;

  /** @param findingsMax how many findings of each promise, and how many hindered orders, the report shows. */
  constructor(readonly findingsMax: number) {}

  /** Counts the rows of an order that is checked. */
  count(books: OrderBooks): void {
    const { orderRow } = books;
    if (orderRow !== undefined) {
      this.checked.I1++;
      this.checked.I4++;
      if (isFinal(orderRow.status)) this.checked.I5++;
    }
    this.checked.I3 += books.ledger.authorizations.length;
    this.checked.I6 += books.topic.length;
    for (const service of serviceNames) {
      this.checked.I7 += books[service].inbox.length;
      this.checked.I9 += books[service].events.length;
    }
  }

  /** Adds an order that waits for an operator. */
  addHindered(orderId: string, why: string): void {
    this.#hinderedCount++;
    if (this.#hindered.length < this.findingsMax) this.#hindered.push({ orderId, why });
  }

  addFindings(findings: readonly Finding[]): void {
    for (const finding of findings) {
      this.#broken[finding.promise]++;
      const shown = this.#findings[finding.promise];
      if (shown.length < this.findingsMax) shown.push(finding);
    }
  }

  toReport(): Pick<AuditReport, "ok" | "promises" | "hindered" | "hinderedCount"> {
    return {
      ok: promiseIds.every((id) => this.#broken[id] === 0),
      promises: promiseIds.map((promise) => ({
        promise,
        title: promises[promise].title,
        checked: this.checked[promise],
        unit: promises[promise].unit,
        broken: this.#broken[promise],
        findings: this.#findings[promise],
      })),
      hindered: this.#hindered,
      hinderedCount: this.#hinderedCount,
    };
  }
}

function byPromise<T>(value: () => T): Record<PromiseId, T> {
  return Object.fromEntries(promiseIds.map((id) => [id, value()])) as Record<PromiseId, T>;
}
