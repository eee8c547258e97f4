/** For end-to-end tests: compares orders, stock, payments and events across all services. */
import type { LedgerEntry } from "./fake-gateway-ledger.ts";
import { serviceNames } from "./services.ts";
import type { StackFile } from "./stack-file.ts";
import type { TestStack } from "./testing.ts";

type OrderRow = Readonly<Record<"order_id" | "status" | "lines_json", string> & Record<"total_minor", number>>;

/**
 * Everything that does not add up between the services' databases and the gateway's ledger; empty if all is well. Call
 * it when nothing is in flight: every order final, every event handled.
 */
export async function findDiscrepancies(stack: TestStack): Promise<readonly string[]> {
  const orders = await stack.databases.order.query<OrderRow>(
    "SELECT order_id, status, lines_json, total_minor FROM orders",
  );
  return [
    ...(await checkReservations(stack, orders)),
    ...(await checkStock(stack, orders)),
    ...checkCharges(orders, await readLedger(await stack.read())),
    ...(await checkEvents(stack)),
  ];
}

/** The gateway's whole ledger. */
export async function readLedger(stack: StackFile): Promise<readonly LedgerEntry[]> {
  const entries: LedgerEntry[] = [];
  for (let after: number | null = 0; after !== null; ) {
    const response: Response = await fetch(`${stack.gateway}/v1/ledger?after=${after}&limit=1000`);
    const page = (await response.json()) as { entries: LedgerEntry[]; nextAfter: number | null };
    entries.push(...page.entries);
    after = page.nextAfter;
  }
  return entries;
}

function describe(problem: string, rows: readonly unknown[]): readonly string[] {
  return rows.map((row) => `${problem}: ${JSON.stringify(row)}`);
}

async function checkReservations(stack: TestStack, orders: readonly OrderRow[]): Promise<readonly string[]> {
  const rows = await stack.databases.inventory.query<{ order_id: string; status: string }>(
    "SELECT order_id, status FROM reservation",
  );
  const reservationOf = new Map(rows.map(({ order_id, status }) => [order_id, status]));
  return orders.flatMap((row) => {
    const reservation = reservationOf.get(row.order_id) ?? "NONE";
    if (row.status === "COMPLETED") {
      return reservation === "SOLD" ? [] : describe("completed and not sold", [{ ...row, reservation }]);
    }
    if (row.status === "FAILED") {
      const isReleased = reservation !== "HELD" && reservation !== "SOLD";
      return isReleased ? [] : describe("failed and not released", [{ ...row, reservation }]);
    }
    return describe("not final", [row]);
  });
}

async function checkStock(stack: TestStack, orders: readonly OrderRow[]): Promise<readonly string[]> {
  const { inventory } = stack.databases;
  const unbalanced = await inventory.query(
    "SELECT * FROM stock WHERE initial <> available + held + sold OR available < 0 OR held < 0 OR sold < 0",
  );
  const stock = await inventory.query<{ sku: string; held: number; sold: number }>(
    "SELECT sku, held, sold FROM stock WHERE held > 0 OR sold > 0",
  );
  const ordered = new Map<string, number>();
  for (const { status, lines_json } of orders) {
    if (status !== "COMPLETED") continue;
    for (const { sku, quantity } of JSON.parse(lines_json) as { sku: string; quantity: number }[]) {
      ordered.set(sku, (ordered.get(sku) ?? 0) + quantity);
    }
  }
  const known = new Set(stock.map(({ sku }) => sku));
  return [
    ...describe("stock does not add up", unbalanced),
    ...describe(
      "held without an open order",
      stock.filter(({ held }) => held !== 0),
    ),
    ...describe(
      "sold in stock and in orders differ",
      stock
        .filter(({ sku, sold }) => sold !== (ordered.get(sku) ?? 0))
        .map((row) => ({ ...row, orders: ordered.get(row.sku) ?? 0 })),
    ),
    ...describe(
      "ordered and not sold in stock",
      [...ordered].filter(([sku]) => !known.has(sku)),
    ),
  ];
}

function checkCharges(orders: readonly OrderRow[], ledger: readonly LedgerEntry[]): readonly string[] {
  const authorized = ledger.filter(({ kind, status }) => kind === "AUTHORIZATION" && status === "AUTHORIZED");
  const chargesOf = Map.groupBy(authorized, ({ orderId }) => orderId);
  const known = new Set(orders.map(({ order_id }) => order_id));
  const wrong = orders.flatMap((row) => {
    const charges = chargesOf.get(row.order_id) ?? [];
    if (row.status === "COMPLETED") {
      const isRight = charges.length === 1 && charges[0]?.amountMinor === String(row.total_minor);
      return isRight ? [] : describe("completed and not charged once, at its total", [{ ...row, charges }]);
    }
    return charges.length === 0 ? [] : describe("not completed and charged", [{ ...row, charges }]);
  });
  const unknown = [...chargesOf.keys()].filter((orderId) => !known.has(orderId));
  return [...wrong, ...describe("charged for an unknown order", unknown)];
}

async function checkEvents(stack: TestStack): Promise<readonly string[]> {
  const unpublished = await Promise.all(
    serviceNames.map(async (service) =>
      describe(
        `${service}: not published, or not at the first attempt`,
        await stack.databases[service].query(
          `SELECT id, type, status, retry_count FROM ${service}_outbox_event
            WHERE status <> 'PUBLISHED' OR retry_count > 0`,
        ),
      ),
    ),
  );
  const doubleEnds = await stack.databases.order.query(
    `SELECT aggregate_id, COUNT(*) AS events FROM order_outbox_event
      WHERE type IN ('shop.order.v1.OrderCompleted', 'shop.order.v1.OrderFailed') GROUP BY aggregate_id HAVING events > 1`,
  );
  return [...unpublished.flat(), ...describe("more than one final event", doubleEnds)];
}
