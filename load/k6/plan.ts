/** What `run.ts` tells the k6 script, and what the script tells it back. Types only: the two run in different engines. */

export interface LoadPlan {
  /** The first eight hexadecimal digits of every request id of the run: they tell its orders from all others. */
  readonly run: string;
  /** Order's instances; the virtual users are spread over them. */
  readonly httpUrls: readonly string[];
  /** `host:port` for gRPC. */
  readonly grpcAddresses: readonly string[];
  readonly ratePerSecond: number;
  readonly seconds: number;
  /** Shares of all orders, 0 to 1. */
  readonly watchShare: number;
  readonly declinedShare: number;
  readonly outOfStockShare: number;
  /** Virtual users, all made before the start: one that k6 adds later costs a dropped iteration first. */
  readonly placingUsers: number;
  readonly watchingUsers: number;
  readonly watchTimeoutSeconds: number;
  readonly summaryFile: string;
}

export interface Quantiles {
  readonly count: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** What k6 counted. Times in milliseconds. */
export interface LoadSummary {
  /** Orders that were answered with an id and PENDING. */
  readonly acknowledged: number;
  readonly errors: number;
  readonly droppedIterations: number;
  readonly watched: number;
  /** Watches that ended, or were given up, without a final status. */
  readonly watchesNotFinal: number;
  readonly answeredMs: Quantiles | undefined;
  /** From just before PlaceOrder was sent to the final status on the stream. */
  readonly watchedFinalMs: Quantiles | undefined;
}
