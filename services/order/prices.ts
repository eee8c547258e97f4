import { sleep } from "../kit/backoff.ts";
import type { Database } from "../kit/database.ts";
import { UnavailableError } from "../kit/errors.ts";
import type { Logger } from "../kit/log.ts";
import type { Price } from "./placement.ts";
import { readPrices } from "./repository.ts";

/** Order's own price list, in memory: a client never sends a price, and placing an order looks none up. */
export interface PriceList {
  /** @throws UnavailableError until the list was read for the first time. */
  priceOf(sku: string): Price | undefined;
  isLoaded(): boolean;
  close(): void;
}

const refreshIntervalMs = 30_000;
const retryIntervalMs = 500;

/** Reads the list now and every 30 s; while the database is away, the last one read goes on. */
export function loadPriceList(database: Database, log: Logger): PriceList {
  const closing = new AbortController();
  let list: ReadonlyMap<string, Price> | undefined;
  const refresh = async () => {
    while (!closing.signal.aborted) {
      let waitMs = refreshIntervalMs;
      try {
        list = await readPrices(database);
      } catch (error) {
        log.warn({ err: error }, "the price list could not be read");
        waitMs = retryIntervalMs;
      }
      await sleep(waitMs, closing.signal);
    }
  };
  void refresh();
  return {
    priceOf(sku) {
      if (list === undefined) throw new UnavailableError("The price list is not loaded yet; ask again.");
      return list.get(sku);
    },
    isLoaded: () => list !== undefined,
    close: () => closing.abort(),
  };
}
