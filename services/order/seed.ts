import { openDatabase } from "../kit/database.ts";

const statementTimeoutMs = 30_000;

/** Inserts demo prices, from EUR 1.00 up, for `sku-0001` … `sku-1000`, `sku-rare` and `sku-none`. Keeps existing prices. */
export async function seedPrices(databaseUrl: string): Promise<void> {
  const skus = Array.from({ length: 1_000 }, (_, index) => `sku-${String(index + 1).padStart(4, "0")}`);
  const rows = [...skus, "sku-rare", "sku-none"].map((sku, index) => [sku, "EUR", 100 + 7 * index]);
  const database = openDatabase({ url: databaseUrl, connectionsMax: 1, statementTimeoutMs });
  try {
    await database.execute(
      "INSERT INTO price (sku, currency_code, minor_units) VALUES ? ON DUPLICATE KEY UPDATE sku = price.sku",
      [rows],
    );
  } finally {
    await database.close();
  }
}
