import type { OutboxRow } from "../../proto/envelope.ts";

/** Larger pages fill the requests better and cost heap. Above this number of rows, a backlog drains no faster. */
export const pageRowsMax = 200;
/** After a start or an outage, this many rows are read and sent before larger pages. */
const probeRows = 10;
/** Roughly the most that the payloads of a page may take, counted in characters of the JSON text. */
const pageSizeMaxBytes = 4 * 1_024 * 1_024;

/** How many rows the relay reads and sends at once. */
export class PageSize {
  #rows = probeRows;
  #isProbing = true;

  /** Rows to read. */
  get rows(): number {
    return this.#rows;
  }

  /** Rows of a page to send before the others: after a start or an outage, only a probe. */
  get firstSendRows(): number {
    return this.#isProbing ? probeRows : Number.POSITIVE_INFINITY;
  }

  /** After a start or an outage: begins small again. */
  reset(): void {
    this.#rows = probeRows;
    this.#isProbing = true;
  }

  /** Rows were sent. */
  noteSent(): void {
    this.#isProbing = false;
  }

  /**
   * Sizes the next page after one that went well: as large as memory allows, judged by the average of the rows that were
   * read. Held rows count: if many of them come first, small pages would take long to get past them.
   */
  growAfter(read: readonly OutboxRow[]): void {
    if (read.length === 0) return;
    const averageBytes = read.reduce((sum, { payload }) => sum + payload.length, 0) / read.length;
    const fittingRows = Math.floor(pageSizeMaxBytes / Math.max(1, averageBytes));
    this.#rows = Math.max(probeRows, Math.min(pageRowsMax, fittingRows));
  }
}
