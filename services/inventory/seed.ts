import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/mysql2";
import { createConnection } from "mysql2/promise";
import { stock } from "./schema.ts";

/** Inserts demo stock: a million pieces each of `sku-0001` … `sku-1000`, one `sku-rare`, no `sku-none`. Keeps existing rows. */
export async function seedStock(databaseUrl: string): Promise<void> {
  const plenty = Array.from({ length: 1_000 }, (_, index) => ({
    sku: `sku-${String(index + 1).padStart(4, "0")}`,
    pieces: 1_000_000,
  }));
  const rows = [...plenty, { sku: "sku-rare", pieces: 1 }, { sku: "sku-none", pieces: 0 }];
  const connection = await createConnection({ uri: databaseUrl, charset: "UTF8MB4_BIN" });
  try {
    await drizzle(connection)
      .insert(stock)
      .values(rows.map(({ sku, pieces }) => ({ sku, initial: pieces, available: pieces })))
      .onDuplicateKeyUpdate({ set: { sku: sql`sku` } });
  } finally {
    await connection.end();
  }
}
