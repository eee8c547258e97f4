/**
 * The local stand-in for a payment provider: a process of its own with a durable ledger, as separate from our services as
 * a real provider. It deduplicates by idempotency key, not by order: two keys for one order are two charges.
 */
import { sleep } from "../kit/backoff.ts";
import { environment, port, readConfig, text } from "../kit/config.ts";
import { type AuthorizationRequest, Ledger, type LedgerEntry } from "./fake-gateway-ledger.ts";

const slowMs = 1_000;
const hangMs = 30_000;
const pageSizeMax = 1_000;

/** A malformed request; answered with 400. */
class BadRequest extends Error {}

export interface FakeGateway {
  readonly url: string;
  close(): Promise<void>;
}

/** Serves the fake gateway on a ledger file. Port 0 lets the system choose. */
export function serveFakeGateway(options: {
  readonly host: string;
  readonly port: number;
  readonly ledgerFile: string;
}): FakeGateway {
  const ledger = new Ledger(options.ledgerFile);
  const server = Bun.serve({
    hostname: options.host,
    port: options.port,
    // Longer than a hanging call hangs.
    idleTimeout: (2 * hangMs) / 1_000,
    maxRequestBodySize: 65_536,
    routes: {
      "/livez": { GET: () => Response.json({ alive: true }) },
      "/v1/authorizations": { POST: (request) => authorize(ledger, request) },
      "/v1/voids": { POST: (request) => voidOrder(ledger, request) },
      "/v1/authorizations/:key": {
        GET(request) {
          const entry = ledger.findByKey(request.params.key);
          if (entry?.kind !== "AUTHORIZATION") return problem(404, "There is no authorization with this key.");
          return Response.json({ orderId: entry.orderId, ...authorizationView(entry) });
        },
      },
      "/v1/orders/:orderId": {
        GET(request) {
          const { orderId } = request.params;
          const entries = ledger.findByOrder(orderId);
          return Response.json({
            orderId,
            voided: entries.some((entry) => entry.kind === "VOID"),
            authorizations: entries.filter((entry) => entry.kind === "AUTHORIZATION").map(authorizationView),
          });
        },
      },
      "/v1/ledger": {
        GET(request) {
          const parameters = new URL(request.url).searchParams;
          const after = wholeNumber(parameters.get("after") ?? "0", "after", Number.MAX_SAFE_INTEGER);
          const limit = wholeNumber(parameters.get("limit") ?? String(pageSizeMax), "limit", pageSizeMax);
          const entries = ledger.page(after, Math.max(limit, 1));
          return Response.json({ entries, nextAfter: entries.at(-1)?.sequence ?? null });
        },
      },
    },
    fetch: () =>
      problem(404, "Not found. Try /v1/authorizations, /v1/voids, /v1/orders/{orderId}, /v1/ledger or /livez."),
    error(error) {
      if (error instanceof BadRequest) return problem(400, error.message);
      console.error(error);
      return problem(500, "The gateway failed. Retry with the same key.");
    },
  });
  return {
    url: `http://${options.host}:${server.port}`,
    async close() {
      await server.stop(true);
      ledger.close();
    },
  };
}

async function authorize(ledger: Ledger, request: Request): Promise<Response> {
  const key = idempotencyKey(request);
  const body = await jsonObject(request);
  const authorization: AuthorizationRequest = {
    orderId: field(body, "orderId", /^\S{1,128}$/, "1 to 128 characters without spaces"),
    amountMinor: field(body, "amountMinor", /^[1-9]\d{0,17}$/, "a positive whole number of minor units, as a string"),
    currency: field(body, "currency", /^[A-Z]{3}$/, "an ISO 4217 code like EUR"),
    paymentMethod: field(body, "paymentMethod", /^[\w-]{1,64}$/, "a token like pm_ok"),
  };
  const usage = ledger.recordRequest(key, JSON.stringify({ operation: "authorize", ...authorization }));
  if (usage === "MISUSED") return misused();
  const isFirst = usage === "NEW";
  const declined = declineReason(authorization.paymentMethod);
  const decide = () => {
    const entry = ledger.authorize(key, authorization, declined);
    return entry === undefined ? Response.json({ status: "VOIDED" }, { status: 409 }) : responseFor(entry);
  };
  switch (authorization.paymentMethod) {
    case "pm_timeout_charged": {
      const answer = decide();
      return isFirst ? hang(request) : answer;
    }
    case "pm_timeout_not_charged":
      return isFirst ? hang(request) : decide();
    case "pm_slow":
      await sleep(slowMs, request.signal);
      return decide();
    default:
      return decide();
  }
}

async function voidOrder(ledger: Ledger, request: Request): Promise<Response> {
  const key = idempotencyKey(request);
  const body = await jsonObject(request);
  const orderId = field(body, "orderId", /^\S{1,128}$/, "1 to 128 characters without spaces");
  if (ledger.recordRequest(key, JSON.stringify({ operation: "void", orderId })) === "MISUSED") return misused();
  return Response.json({ orderId, status: "VOIDED", voidedAmountMinor: ledger.voidOrder(key, orderId) });
}

function declineReason(paymentMethod: string): string | null {
  switch (paymentMethod) {
    case "pm_ok":
    case "pm_slow":
    case "pm_timeout_charged":
    case "pm_timeout_not_charged":
      return null;
    case "pm_declined":
      return "declined by the issuer";
    default:
      return "unknown token";
  }
}

/** The recorded outcome with its current status: 409 if the authorisation has been voided since. */
function responseFor(entry: LedgerEntry): Response {
  switch (entry.status) {
    case "AUTHORIZED": {
      const { authorizationId, orderId, status, amountMinor, currency } = entry;
      return Response.json({ authorizationId, orderId, status, amountMinor, currency });
    }
    case "DECLINED":
      return Response.json({ status: entry.status, reason: entry.reason }, { status: 402 });
    case "VOIDED":
      return Response.json({ status: entry.status }, { status: 409 });
  }
}

function authorizationView(entry: LedgerEntry) {
  const { idempotencyKey, authorizationId, status, amountMinor, currency, createdAt } = entry;
  return { idempotencyKey, authorizationId, status, amountMinor, currency, createdAt };
}

/** Answers after every client has timed out. */
async function hang(request: Request): Promise<Response> {
  await sleep(hangMs, request.signal);
  return problem(504, "The gateway did not answer in time.");
}

function misused(): Response {
  return problem(422, "This Idempotency-Key was used before with other parameters.");
}

function problem(status: number, message: string): Response {
  return Response.json({ error: message }, { status });
}

function idempotencyKey(request: Request): string {
  const key = request.headers.get("idempotency-key") ?? "";
  if (!/^[\x21-\x7e]{1,255}$/.test(key)) {
    throw new BadRequest("The header Idempotency-Key must hold 1 to 255 visible ASCII characters.");
  }
  return key;
}

async function jsonObject(request: Request): Promise<Record<string, unknown>> {
  let body: unknown;
  try {
    body = await request.json();
  } catch {
    throw new BadRequest("The body must be JSON.");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new BadRequest("The body must be a JSON object.");
  }
  return { ...body };
}

function field(body: Record<string, unknown>, name: string, pattern: RegExp, description: string): string {
  const value = body[name];
  if (typeof value !== "string" || !pattern.test(value)) throw new BadRequest(`${name} must be ${description}.`);
  return value;
}

function wholeNumber(value: string, name: string, max: number): number {
  const number = Number(value);
  if (!/^\d{1,16}$/.test(value) || number > max) throw new BadRequest(`${name} must be a whole number up to ${max}.`);
  return number;
}

if (import.meta.main) {
  const config = readConfig(environment(), {
    host: text("HOST", "127.0.0.1"),
    port: port("GATEWAY_PORT", 8090),
    ledgerFile: text("GATEWAY_LEDGER"),
  });
  const gateway = serveFakeGateway(config);
  console.log(`The fake payment gateway listens on ${gateway.url}.`);
  const close = () => gateway.close().then(() => process.exit(0));
  process.once("SIGTERM", close);
  process.once("SIGINT", close);
}
