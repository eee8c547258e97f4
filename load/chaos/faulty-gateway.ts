/** A proxy for HTTP in front of the payment gateway, which answers as a gateway in trouble does. */

/**
 * - `5xx`: 503 before the gateway has seen the call, or 502 after it has carried it out, in turn.
 * - `timeout`: no answer, before or after the gateway has carried it out, in turn.
 * - `slow`: an answer after a while.
 * - `throttled`: 429 with Retry-After.
 */
export type GatewayFault = "5xx" | "timeout" | "slow" | "throttled";

export interface FaultyGateway {
  /** What happens to calls from now on; they go through where it is undefined. */
  suffer(fault: GatewayFault | undefined): void;
  /** Calls that a fault hit so far. */
  affected(): number;
  close(): Promise<void>;
}

const slowMs = 700;
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

  async function forward(request: Request, body: ArrayBuffer): Promise<Response> {
    const url = new URL(request.url);
    const answer = await fetch(`${options.gatewayUrl}${url.pathname}${url.search}`, {
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
          return Response.json({ error: "in trouble" }, { status: isCarriedOut ? 502 : 503 });
        case "timeout":
          if (isCarriedOut) await forward(request, body);
          await Bun.sleep(hangMs);
          return Response.json({ error: "in trouble" }, { status: 504 });
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
    error: () => Response.json({ error: "the gateway is away" }, { status: 502 }),
  });
  return {
    suffer(next) {
      fault = next;
    },
    affected: () => affected,
    close: () => server.stop(true),
  };
}
