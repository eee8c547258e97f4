/** The payment gateway's own ledger, as the auditor reads it. */
import { UnavailableError } from "../../kit/errors.ts";
import type { LedgerEntry } from "../../stack/fake-gateway-ledger.ts";

/** An authorisation as the gateway shows it now. */
export interface LedgerAuthorization {
  readonly idempotencyKey: string;
  readonly authorizationId: string | null;
  readonly status: LedgerEntry["status"];
  /** Minor units, decimal. */
  readonly amountMinor: string;
  readonly currency: string | null;
}

/** What the gateway knows of one order. */
export interface OrderLedger {
  readonly voided: boolean;
  readonly authorizations: readonly LedgerAuthorization[];
}

export interface LedgerBooks {
  /** Reads on to what is now the end. What was voided meanwhile is known by its own entry. */
  catchUp(): Promise<void>;
  /** Asks the gateway again about these orders. */
  refresh(orderIds: readonly string[]): Promise<void>;
  of(orderId: string): OrderLedger;
  orderIds(): Iterable<string>;
}

const pageSize = 1_000;
const callsMax = 16;
const timeoutMs = 10_000;
const nothing: OrderLedger = { voided: false, authorizations: [] };

/** The ledger of the gateway at `url`. Nothing is read yet. */
export function openLedgerBooks(url: string): LedgerBooks {
  const byOrder = new Map<string, OrderLedger>();
  let position = 0;
  const note = (entry: LedgerEntry) => {
    const before = byOrder.get(entry.orderId) ?? nothing;
    if (entry.kind === "VOID") {
      const authorizations = before.authorizations.map((it) =>
        it.status === "AUTHORIZED" ? { ...it, status: "VOIDED" as const } : it,
      );
      byOrder.set(entry.orderId, { voided: true, authorizations });
      return;
    }
    const { idempotencyKey, authorizationId, status, amountMinor, currency } = entry;
    // Asked about since: what was answered then is newer.
    if (before.authorizations.some((it) => it.idempotencyKey === idempotencyKey)) return;
    const authorization = { idempotencyKey, authorizationId, status, amountMinor, currency };
    byOrder.set(entry.orderId, { ...before, authorizations: [...before.authorizations, authorization] });
  };
  return {
    async catchUp() {
      for (;;) {
        const page = (await get(`${url}/v1/ledger?after=${position}&limit=${pageSize}`)) as { entries: LedgerEntry[] };
        for (const entry of page.entries) note(entry);
        position = page.entries.at(-1)?.sequence ?? position;
        if (page.entries.length < pageSize) return;
      }
    },
    async refresh(orderIds) {
      const waiting = [...orderIds];
      const work = async () => {
        for (let orderId = waiting.pop(); orderId !== undefined; orderId = waiting.pop()) {
          const shown = (await get(`${url}/v1/orders/${encodeURIComponent(orderId)}`)) as OrderLedger;
          const { voided, authorizations } = shown;
          byOrder.set(orderId, {
            voided,
            authorizations: authorizations.map(
              ({ idempotencyKey, authorizationId, status, amountMinor, currency }) => ({
                idempotencyKey,
                authorizationId,
                status,
                amountMinor,
                currency,
              }),
            ),
          });
        }
      };
      await Promise.all(Array.from({ length: callsMax }, work));
    },
    of: (orderId) => byOrder.get(orderId) ?? nothing,
    orderIds: () => byOrder.keys(),
  };
}

async function get(url: string): Promise<unknown> {
  const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
  if (!response.ok) throw new UnavailableError(`The payment gateway's ledger answers ${response.status}.`);
  return await response.json();
}
