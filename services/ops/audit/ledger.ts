/** The payment gateway's own ledger, as the auditor reads it. */
import { UnavailableError } from "../../kit/errors.ts";
import type { LedgerEntry } from "../../stack/fake-gateway-ledger.ts";

/** The current state of an authorisation at the gateway. */
export interface LedgerAuthorization {
  readonly idempotencyKey: string;
  readonly authorizationId: string | null;
  readonly status: LedgerEntry["status"];
  /** Minor units, decimal. */
  readonly amountMinor: string;
  readonly currency: string | null;
}

/** What the gateway knows about one order. */
export interface OrderLedger {
  readonly voided: boolean;
  readonly authorizations: readonly LedgerAuthorization[];
}

/** A copy of the ledger that follows it. */
export interface LedgerBooks {
  /** Reads the entries that were added since. A void has its own entry, so voids since then are known too. */
  catchUp(): Promise<void>;
  /** Asks the gateway for the current state of these orders. */
  refresh(orderIds: readonly string[]): Promise<void>;
  of(orderId: string): OrderLedger;
  orderIds(): Iterable<string>;
}

const pageSize = 1_000;
const callsMax = 16;
const timeoutMs = 10_000;
const nothing: OrderLedger = { voided: false, authorizations: [] };

/** Follows the ledger of the gateway at `url`, from its first entry. Reads nothing yet. */
export function openLedgerBooks(url: string): LedgerBooks {
  const byOrder = new Map<string, OrderLedger>();
  let position = 0;
  const add = (entry: LedgerEntry) => {
    const before = byOrder.get(entry.orderId) ?? nothing;
    if (entry.kind === "VOID") {
      const authorizations = before.authorizations.map((it) =>
        it.status === "AUTHORIZED" ? { ...it, status: "VOIDED" as const } : it,
      );
      byOrder.set(entry.orderId, { voided: true, authorizations });
      return;
    }
    // `refresh` has read it already, and knows a newer state than this entry.
    if (before.authorizations.some(({ idempotencyKey }) => idempotencyKey === entry.idempotencyKey)) return;
    byOrder.set(entry.orderId, { ...before, authorizations: [...before.authorizations, toAuthorization(entry)] });
  };
  return {
    async catchUp() {
      for (;;) {
        const page = (await get(`${url}/v1/ledger?after=${position}&limit=${pageSize}`)) as { entries: LedgerEntry[] };
        for (const entry of page.entries) add(entry);
        position = page.entries.at(-1)?.sequence ?? position;
        if (page.entries.length < pageSize) return;
      }
    },
    async refresh(orderIds) {
      const waiting = [...orderIds];
      const work = async () => {
        for (let orderId = waiting.pop(); orderId !== undefined; orderId = waiting.pop()) {
          const { voided, authorizations } = (await get(
            `${url}/v1/orders/${encodeURIComponent(orderId)}`,
          )) as OrderLedger;
          byOrder.set(orderId, { voided, authorizations: authorizations.map(toAuthorization) });
        }
      };
      await Promise.all(Array.from({ length: callsMax }, work));
    },
    of: (orderId) => byOrder.get(orderId) ?? nothing,
    orderIds: () => byOrder.keys(),
  };
}

/** The fields that the auditor keeps, and no others. */
function toAuthorization(entry: LedgerAuthorization): LedgerAuthorization {
  const { idempotencyKey, authorizationId, status, amountMinor, currency } = entry;
  return { idempotencyKey, authorizationId, status, amountMinor, currency };
}

async function get(url: string): Promise<unknown> {
  const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
  if (!response.ok) throw new UnavailableError(`The payment gateway's ledger answered ${response.status}.`);
  return await response.json();
}
