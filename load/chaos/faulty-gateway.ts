/** An HTTP proxy in front of the payment gateway that can make it fail. */

/**
 * - `5xx`: alternates between 503 without a call of the gateway and 502 after the gateway has carried the call out.
 * - `timeout`: never answers; every second call is carried out nevertheless.
 * - `slow`: answers late.
 * - `throttled`: 429 with Retry-After.
 */
export type GatewayFault = "5xx" | "timeout" | "slow" | "throttled";

export interface FaultyGateway {
  /** Applies a fault to all calls from now on; undefined passes them through. */
  inject(fault: GatewayFault | undefined): void;
  /** How many calls a fault was applied to so far. */
  affected(): number;
  close(): Promise<void>;
}

const slowMs = 700;
/** Longer than any client waits. */
const hangMs = 30_000;
const retryAfterSeconds = 1;

/** Serves on `port`, in front of the gateway at `gatewayUrl`. */
export function serveFaultyGateway(options: {
  readonly host: string;
  readonly port: number;
  readonly gatewayUrl: string;
}): FaultyGateway {
  let fault: GatewayFault | undefined;
  let affected = 0;
  const forward = (request: Request, body: ArrayBuffer) => forwardTo(options.gatewayUrl, request, body);
  const server = Bun.serve({
    hostname: options.host,
    port: options.port,
    idleTimeout: (2 * hangMs) / 1_000,
    async fetch(request) {
      const body = await request.arrayBuffer();
      if (fault === undefined) return await forward(request, body);
      const isCarriedOut = affected++ % 2 === 1;
      switch (fault) {
        case "5xx":
          if (isCarriedOut) await forward(request, body);
          return Response.json({ error: "injected fault" }, { status: isCarriedOut ? 502 : 503 });
        case "timeout":
          if (isCarriedOut) await forward(request, body);
          await Bun.sleep(hangMs);
          return Response.json({ error: "injected fault" }, { status: 504 });
        case "slow":
          await Bun.sleep(slowMs);
          return await forward(request, body);
        case "throttled":
          return Response.json(
            { error: "too many requests" },
            { status: 429, headers: { "retry-after": String(retryAfterSeconds) } },
          );
      }
    },
    error: () => Response.json({ error: "the gateway cannot be reached" }, { status: 502 }),
  });
  return {
    inject(next) {
      fault = next;
    },
    affected: () => affected,
    close: () => server.stop(true),
  };
}

async function forwardTo(gatewayUrl: string, request: Request, body: ArrayBuffer): Promise<Response> {
  const url = new URL(request.url);
  const answer = await fetch(`${gatewayUrl}${url.pathname}${url.search}`, {
    method: request.method,
    headers: {
      "content-type": request.headers.get("content-type") ?? "",
      "idempotency-key": request.headers.get("idempotency-key") ?? "",
    },
    body,
  });
  return new Response(await answer.arrayBuffer(), {
    status: answer.status,
    headers: { "content-type": "application/json" },
  });
}
