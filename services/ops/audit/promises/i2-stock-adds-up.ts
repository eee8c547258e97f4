/**
 * I2: per SKU, initial = available + held + sold, and held and sold agree with the reservations and the completed orders.
 * All that changes is in inventory's database and is read in one snapshot. The orders' lines are in Order's database, but
 * never change. So a difference is wrong at any moment, however busy the system is.
 */
import type { InferSelectModel } from "drizzle-orm";
import { OrderCompletedSchema } from "../../../../proto/gen/shop/order/v1/events_pb.ts";
import { inboxTableName } from "../../../../relay/tables.ts";
import type { stock } from "../../../inventory/schema.ts";
import type { Queryable } from "../../../kit/database.ts";
import { type Databases, quantitiesBySku, type SkuQuantities } from "../books.ts";
import type { Finding } from "./order-check.ts";

type Query = Queryable["query"];
type StockRow = InferSelectModel<typeof stock>;

/** The pieces of one SKU that reservations and orders account for. */
interface SkuTotals {
  held: number;
  sold: number;
  /** Of orders whose OrderCompleted inventory has handled. */
  completed: number;
  /** Some orders that are sold by their reservation but not completed, or the other way round. */
  readonly contradictoryOrders: string[];
}

const pageSize = 2_000;
const contradictoryOrdersMax = 5;

/** Compares every SKU with all reservations and all completed orders. */
export async function checkStock(
  databases: Databases,
): Promise<{ readonly checked: number; readonly findings: readonly Finding[] }> {
  return await databases.inventory.snapshot(async (query) => {
    const totalsBySku = await new TotalsReader(databases, query).read();
    const findings: Finding[] = [];
    let checked = 0;
    for (let after: string | undefined = ""; after !== undefined; ) {
      const rows: StockRow[] = await query<StockRow>(
        "SELECT sku, initial, available, held, sold FROM stock WHERE sku > ? ORDER BY sku LIMIT ?",
        [after, pageSize],
      );
      for (const row of rows) {
        const totals = totalsBySku.get(row.sku) ?? noTotals();
        totalsBySku.delete(row.sku);
        const differences = differencesOf(row, totals);
        if (differences.length > 0) findings.push(findingOf(row.sku, differences, { stock: row, totals }));
      }
      checked += rows.length;
      after = rows.at(-1)?.sku;
    }
    for (const [sku, totals] of totalsBySku) {
      if (totals.held + totals.sold + totals.completed === 0) continue;
      findings.push(findingOf(sku, ["reservations or orders have this SKU, but it has no stock row"], { totals }));
    }
    return { checked, findings };
  });
}

function differencesOf(row: StockRow, { held, sold, completed }: SkuTotals): readonly string[] {
  return [
    ...(row.initial === row.available + row.held + row.sold ? [] : ["initial ≠ available + held + sold"]),
    ...(Math.min(row.available, row.held, row.sold) < 0 ? ["a quantity is negative"] : []),
    ...(row.held === held ? [] : ["held ≠ Σ HELD reservations"]),
    ...(row.sold === sold ? [] : ["sold ≠ Σ SOLD reservations"]),
    ...(row.sold === completed ? [] : ["sold ≠ Σ completed orders"]),
  ];
}

function findingOf(sku: string, differences: readonly string[], rows: Finding["rows"]): Finding {
  return { promise: "I2", subject: sku, what: differences.join("; "), rows };
}

function noTotals(): SkuTotals {
  return { held: 0, sold: 0, completed: 0, contradictoryOrders: [] };
}

/** Adds up reservations and completed orders by SKU, page by page, in inventory's snapshot. */
class TotalsReader {
  readonly #databases: Databases;
  readonly #query: Query;
  readonly #totals = new Map<string, SkuTotals>();

  constructor(databases: Databases, query: Query) {
    this.#databases = databases;
    this.#query = query;
  }

  async read(): Promise<Map<string, SkuTotals>> {
    const [inbox] = await this.#query<{ since: Date | null }>(
      `SELECT MIN(handled_at) AS since FROM ${inboxTableName("inventory")}`,
    );
    const inboxStartsAt = inbox?.since ?? new Date(0);
    for (let after: string | undefined = ""; after !== undefined; ) {
      after = await this.#addPage(after, inboxStartsAt);
    }
    return this.#totals;
  }

  /** Returns the last order id of the page; undefined after the last page. */
  async #addPage(after: string, inboxStartsAt: Date): Promise<string | undefined> {
    const reservations = await this.#query<{ id: string; status: string; lines: string }>(
      `SELECT order_id AS id, status, held_lines AS \`lines\` FROM reservation
        WHERE order_id > ? ORDER BY order_id LIMIT ?`,
      [after, pageSize],
    );
    const last = reservations.length < pageSize ? undefined : reservations.at(-1)?.id;
    const completed = await this.#readCompleted(after, last);
    const unexplained = reservations.filter(({ id, status }) => status === "SOLD" && !completed.has(id));
    for (const id of await this.#readCompletedBefore(unexplained, inboxStartsAt)) completed.add(id);
    for (const quantities of await this.#readOrderLines([...completed])) this.#add(quantities, "completed");
    for (const { id, status, lines } of reservations) {
      const quantities = quantitiesBySku(JSON.parse(lines));
      if (status === "HELD") this.#add(quantities, "held");
      if (status === "SOLD") this.#add(quantities, "sold");
      if ((status === "SOLD") === completed.has(id)) continue;
      for (const [sku] of quantities) {
        const { contradictoryOrders } = this.#of(sku);
        if (contradictoryOrders.length < contradictoryOrdersMax) contradictoryOrders.push(id);
      }
    }
    return last;
  }

  #of(sku: string): SkuTotals {
    const totals = this.#totals.get(sku) ?? noTotals();
    this.#totals.set(sku, totals);
    return totals;
  }

  #add(quantities: SkuQuantities, to: "held" | "sold" | "completed"): void {
    for (const [sku, quantity] of quantities) this.#of(sku)[to] += quantity;
  }

  /** The orders after `after` whose OrderCompleted inventory has handled. */
  async #readCompleted(after: string, upTo: string | undefined): Promise<Set<string>> {
    const completions = await this.#query<{ id: string }>(
      `SELECT DISTINCT aggregate_id AS id FROM ${inboxTableName("inventory")}
        WHERE aggregate_id > ? ${upTo === undefined ? "" : "AND aggregate_id <= ?"} AND type = ? AND outcome = 'HANDLED'`,
      upTo === undefined ? [after, OrderCompletedSchema.typeName] : [after, upTo, OrderCompletedSchema.typeName],
    );
    return new Set(completions.map(({ id }) => id));
  }

  /** Those of the orders that were completed before the oldest inbox row: their OrderCompleted has been pruned. */
  async #readCompletedBefore(orders: readonly { readonly id: string }[], time: Date): Promise<readonly string[]> {
    if (orders.length === 0) return [];
    const rows = await this.#databases.order.query<{ id: string }>(
      "SELECT order_id AS id FROM orders WHERE order_id IN (?) AND status = 'COMPLETED' AND updated_at < ?",
      [orders.map(({ id }) => id), time],
    );
    return rows.map(({ id }) => id);
  }

  async #readOrderLines(orderIds: readonly string[]): Promise<readonly SkuQuantities[]> {
    if (orderIds.length === 0) return [];
    const rows = await this.#databases.order.query<{ lines: string }>(
      "SELECT lines_json AS `lines` FROM orders WHERE order_id IN (?)",
      [orderIds],
    );
    return rows.map(({ lines }) => quantitiesBySku(JSON.parse(lines)));
  }
}
