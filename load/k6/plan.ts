/** What measure.ts passes to the k6 script and gets back. Types only, since the script runs in k6's own engine. */

export interface LoadPlan {
  /** The first eight hexadecimal digits of all request ids of the run. They identify its orders. */
  readonly run: string;
  /** Order's instances. The virtual users are spread over them. */
  readonly httpUrls: readonly string[];
  /** `host:port` for gRPC. */
  readonly grpcAddresses: readonly string[];
  readonly ratePerSecond: number;
  readonly seconds: number;
  /** Shares of all orders, 0 to 1. */
  readonly watchShare: number;
  readonly declinedShare: number;
  readonly outOfStockShare: number;
  /** Virtual users. All are created before the start, since k6 adds one later only after a dropped iteration. */
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

/** What k6 counted. Times are in milliseconds. */
export interface LoadSummary {
  /** Requests that were answered with an order id and PENDING. */
  readonly acknowledged: number;
  readonly errors: number;
  readonly droppedIterations: number;
  readonly watched: number;
  /** Watches that ended or timed out without a final status. */
  readonly watchesNotFinal: number;
  readonly answeredMs: Quantiles | undefined;
  /** From just before PlaceOrder is sent until the final status arrives on the stream. */
  readonly watchedFinalMs: Quantiles | undefined;
}
