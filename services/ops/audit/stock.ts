/**
 * I2, the promise about stock. Everything that changes is in inventory's database and is read there as of one moment;
 * the orders' lines, which are Order's, never change. So what does not add up here is wrong, however busy the system is.
 */
import { OrderCompletedSchema } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import { inboxTableName } from "../../../relay/tables.ts";
import type { Queryable } from "../../kit/database.ts";
import { type Databases, inSnapshot, type Pieces, piecesOf } from "./books.ts";
import type { Finding } from "./promises.ts";

interface Sums {
  held: number;
  sold: number;
  /** By the orders whose OrderCompleted inventory has handled. */
  completed: number;
  /** Some orders that are sold by the one account and not by the other. */
  readonly odd: string[];
}

interface StockRow {
  readonly sku: string;
  readonly initial: number;
  readonly available: number;
  readonly held: number;
  readonly sold: number;
}

const pageSize = 2_000;
const oddOrdersMax = 5;

/** Compares every SKU with all reservations and all completed orders. */
export async function judgeStock(
  databases: Databases,
): Promise<{ readonly checked: number; readonly findings: readonly Finding[] }> {
  return await inSnapshot(databases.inventory, async (query) => {
    const sums = await addUp(query, databases);
    const findings: Finding[] = [];
    let checked = 0;
    for (let after: string | undefined = ""; after !== undefined; ) {
      const rows: StockRow[] = await query<StockRow & Record<string, unknown>>(
        "SELECT sku, initial, available, held, sold FROM stock WHERE sku > ? ORDER BY sku LIMIT ?",
        [after, pageSize],
      );
      for (const row of rows) {
        const { held = 0, sold = 0, completed = 0, odd = [] } = sums.get(row.sku) ?? {};
        sums.delete(row.sku);
        const faults = [
          ...(row.initial === row.available + row.held + row.sold ? [] : ["initial ≠ available + held + sold"]),
          ...(Math.min(row.available, row.held, row.sold) < 0 ? ["less than nothing"] : []),
          ...(row.held === held ? [] : ["held ≠ Σ HELD reservations"]),
          ...(row.sold === sold ? [] : ["sold ≠ Σ SOLD reservations"]),
          ...(row.sold === completed ? [] : ["sold ≠ Σ completed orders"]),
        ];
        if (faults.length > 0)
          findings.push(finding(row.sku, faults, { stock: row, sums: { held, sold, completed, odd } }));
      }
      checked += rows.length;
      after = rows.at(-1)?.sku;
    }
    for (const [sku, { held, sold, completed, odd }] of sums) {
      if (held + sold + completed === 0) continue;
      findings.push(finding(sku, ["there is no such SKU"], { sums: { held, sold, completed, odd } }));
    }
    return { checked, findings };
  });
}

function finding(sku: string, faults: readonly string[], rows: Finding["rows"]): Finding {
  return { promise: "I2", subject: sku, what: faults.join("; "), rows };
}

async function addUp(query: Queryable["query"], databases: Databases): Promise<Map<string, Sums>> {
  const sums = new Map<string, Sums>();
  const of = (sku: string) => {
    const found = sums.get(sku) ?? { held: 0, sold: 0, completed: 0, odd: [] };
    sums.set(sku, found);
    return found;
  };
  const add = (pieces: Pieces, to: "held" | "sold" | "completed") => {
    for (const [sku, quantity] of pieces) of(sku)[to] += quantity;
  };
  const [inbox] = await query<{ since: Date | null }>(
    `SELECT MIN(handled_at) AS since FROM ${inboxTableName("inventory")}`,
  );
  const remembersSince = inbox?.since ?? new Date(0);
  for (let after: string | undefined = ""; after !== undefined; ) {
    const from: string = after;
    const reservations = await query<{ id: string; status: string; lines: string }>(
      `SELECT order_id AS id, status, held_lines AS \`lines\` FROM reservation
        WHERE order_id > ? ORDER BY order_id LIMIT ?`,
      [from, pageSize],
    );
    const last = reservations.length < pageSize ? undefined : reservations.at(-1)?.id;
    const completions = await query<{ id: string }>(
      `SELECT DISTINCT aggregate_id AS id FROM ${inboxTableName("inventory")}
        WHERE aggregate_id > ? ${last === undefined ? "" : "AND aggregate_id <= ?"} AND type = ? AND outcome = 'HANDLED'`,
      last === undefined ? [from, OrderCompletedSchema.typeName] : [from, last, OrderCompletedSchema.typeName],
    );
    const completed = new Set(completions.map(({ id }) => id));
    const unheard = reservations.filter(({ id, status }) => status === "SOLD" && !completed.has(id));
    for (const id of await readCompletedBefore(databases, unheard, remembersSince)) completed.add(id);
    for (const [, pieces] of await readLines(databases, [...completed])) add(pieces, "completed");
    for (const { id, status, lines } of reservations) {
      const pieces = piecesOf(JSON.parse(lines));
      if (status === "HELD") add(pieces, "held");
      if (status === "SOLD") add(pieces, "sold");
      if ((status === "SOLD") === completed.has(id)) continue;
      for (const [sku] of pieces) {
        const { odd } = of(sku);
        if (odd.length < oddOrdersMax) odd.push(id);
      }
    }
    after = last;
  }
  return sums;
}

/** Those that were completed so long ago that the inbox has forgotten it. */
async function readCompletedBefore(
  databases: Databases,
  reservations: readonly { readonly id: string }[],
  time: Date,
): Promise<readonly string[]> {
  if (reservations.length === 0) return [];
  const rows = await databases.order.query<{ id: string }>(
    "SELECT order_id AS id FROM orders WHERE order_id IN (?) AND status = 'COMPLETED' AND updated_at < ?",
    [reservations.map(({ id }) => id), time],
  );
  return rows.map(({ id }) => id);
}

async function readLines(databases: Databases, orderIds: readonly string[]): Promise<ReadonlyMap<string, Pieces>> {
  if (orderIds.length === 0) return new Map();
  const rows = await databases.order.query<{ id: string; lines: string }>(
    "SELECT order_id AS id, lines_json AS `lines` FROM orders WHERE order_id IN (?)",
    [orderIds],
  );
  return new Map(rows.map(({ id, lines }) => [id, piecesOf(JSON.parse(lines))]));
}
