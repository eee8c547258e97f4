import { sleep } from "../kit/backoff.ts";
import type { Database } from "../kit/database.ts";
import { UnavailableError } from "../kit/errors.ts";
import type { Logger } from "../kit/log.ts";
import type { Price } from "./placement.ts";
import { readPrices } from "./repository.ts";

/** Order's own price list, held in memory so that placing an order needs no query for prices. Clients never send prices. */
export interface PriceList {
  /** The price of a SKU; undefined if it is not for sale. @throws UnavailableError until the list has been read once. */
  priceOf(sku: string): Price | undefined;
  isLoaded(): boolean;
  close(): void;
}

const refreshIntervalMs = 30_000;
const retryIntervalMs = 500;

/**
 * Starts to read the list, now and every 30 s. While the database is away, the last list stays in use, and reading is
 * retried twice a second.
 */
export function startPriceList(database: Database, log: Logger): PriceList {
  const closing = new AbortController();
  let list: ReadonlyMap<string, Price> | undefined;
  const keepRefreshing = async () => {
    while (!closing.signal.aborted) {
      let waitMs = refreshIntervalMs;
      try {
        list = await readPrices(database);
      } catch (error) {
        log.warn({ err: error }, "price list not read");
        waitMs = retryIntervalMs;
      }
      await sleep(waitMs, closing.signal);
    }
  };
  void keepRefreshing();
  return {
    priceOf(sku) {
      if (list === undefined) throw new UnavailableError("The price list is not loaded yet; try again.");
      return list.get(sku);
    },
    isLoaded: () => list !== undefined,
    close: () => closing.abort(),
  };
}
