import { openDatabase } from "../kit/database.ts";

const statementTimeoutMs = 30_000;

/** Inserts demo stock: a million pieces each of `sku-0001` … `sku-1000`, one `sku-rare`, no `sku-none`. Keeps existing rows. */
export async function seedStock(databaseUrl: string): Promise<void> {
  const plenty = Array.from(
    { length: 1_000 },
    (_, index) => [`sku-${String(index + 1).padStart(4, "0")}`, 1_000_000] as const,
  );
  const stock = [...plenty, ["sku-rare", 1] as const, ["sku-none", 0] as const];
  const rows = stock.map(([sku, pieces]) => [sku, pieces, pieces]);
  const database = openDatabase({ url: databaseUrl, connectionsMax: 1, statementTimeoutMs });
  try {
    await database.execute(
      "INSERT INTO stock (sku, initial, available) VALUES ? ON DUPLICATE KEY UPDATE sku = stock.sku",
      [rows],
    );
  } finally {
    await database.close();
  }
}
