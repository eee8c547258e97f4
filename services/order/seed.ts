import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/mysql2";
import { createConnection } from "mysql2/promise";
import { prices } from "./schema.ts";

/** Inserts demo prices, from EUR 1.00 up, for `sku-0001` … `sku-1000`, `sku-rare` and `sku-none`. Keeps existing prices. */
export async function seedPrices(databaseUrl: string): Promise<void> {
  const skus = Array.from({ length: 1_000 }, (_, index) => `sku-${String(index + 1).padStart(4, "0")}`);
  const rows = [...skus, "sku-rare", "sku-none"].map((sku, index) => ({
    sku,
    currencyCode: "EUR",
    minorUnits: BigInt(100 + 7 * index),
  }));
  const connection = await createConnection({ uri: databaseUrl, charset: "UTF8MB4_BIN" });
  try {
    await drizzle(connection)
      .insert(prices)
      .values(rows)
      .onDuplicateKeyUpdate({ set: { sku: sql`sku` } });
  } finally {
    await connection.end();
  }
}
