/**
 * The payment gateway's HTTP client. What is required of a gateway: authorise and void by idempotency key; a void is
 * terminal for its order, also for one that it never saw.
 */
import type { GatewayCall, GatewayOutcome } from "./domain.ts";

/** What a call came to. */
export interface GatewayAnswer {
  readonly outcome: GatewayOutcome;
  /** Set where the gateway said when to ask again (429). */
  readonly retryAfterMs?: number;
  /** Set where we are at fault, or do not understand the answer: an outage of ours, never a decline. */
  readonly fault?: string;
}

/** Carries out a call. Never rejects: what is not known is GatewayUnknown. */
export type GatewayClient = (call: GatewayCall) => Promise<GatewayAnswer>;

/** A gateway that asks for more than this is asked again all the same. */
const retryAfterMaxMs = 3_600_000;
/**
 * Of our credentials, our URL or our request's form (RFC 9110 §15.5): nothing is said of the payment. Not 403, with which
 * a gateway refuses what it has understood.
 */
const ownFaultStatuses: ReadonlySet<number> = new Set([401, 404, 405, 407, 408, 411, 413, 415, 421, 425, 431]);
/** The width of `authorization_id`. */
const authorizationIdLengthMax = 128;
/** The greatest BIGINT. */
const minorUnitsMax = 2n ** 63n - 1n;

/**
 * A client of the gateway at `url`.
 * @param options.timeoutMs from the first byte sent to the last one read.
 */
export function createGatewayClient(options: { readonly url: string; readonly timeoutMs: number }): GatewayClient {
  return async (call) => {
    let response: Response;
    let body: string;
    try {
      response = await fetch(`${options.url}${call.kind === "authorise" ? "/v1/authorizations" : "/v1/voids"}`, {
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": call.idempotencyKey },
        body: JSON.stringify(requestOf(call)),
        redirect: "manual",
        signal: AbortSignal.timeout(options.timeoutMs),
      });
      body = await response.text();
    } catch {
      // Timed out, refused or cut off: it may have been done.
      return { outcome: unknown };
    }
    return answerOf(call, response, body);
  };
}

const unknown: GatewayOutcome = { $typeName: "GatewayUnknown" };

function requestOf(call: GatewayCall): Readonly<Record<string, string>> {
  if (call.kind === "void") return { orderId: call.orderId };
  const { amount, paymentMethod } = call.terms;
  return {
    orderId: call.orderId,
    amountMinor: amount.minorUnits.toString(),
    currency: amount.currencyCode,
    paymentMethod,
  };
}

function answerOf(call: GatewayCall, { status, headers }: Response, body: string): GatewayAnswer {
  if (status === 200) {
    const outcome = call.kind === "authorise" ? authorizationOf(body) : voidOf(body);
    return outcome === undefined
      ? { outcome: unknown, fault: `answered 200 to ${call.kind} with a body that we do not understand` }
      : { outcome };
  }
  if (status === 429) return { outcome: unknown, retryAfterMs: retryAfterMs(headers, Date.now()) };
  if (status >= 500) return { outcome: unknown };
  if (call.kind === "authorise" && status === 402) return { outcome: { $typeName: "GatewayDeclined" } };
  if (call.kind === "authorise" && status === 409) return { outcome: { $typeName: "GatewayVoided" } };
  const fault = `answered ${status} to ${call.kind}`;
  // A void cannot be declined: what is refused has to be done all the same.
  if (call.kind === "void" && status >= 400 && !ownFaultStatuses.has(status))
    return { outcome: { $typeName: "GatewayVoidRefused", refusal: fault }, fault };
  return { outcome: unknown, fault };
}

function authorizationOf(body: string): GatewayOutcome | undefined {
  const { status, authorizationId } = fieldsOf(body);
  if (status !== "AUTHORIZED" || typeof authorizationId !== "string") return undefined;
  if (authorizationId === "" || authorizationId.length > authorizationIdLengthMax) return undefined;
  return { $typeName: "GatewayAuthorized", authorizationId };
}

function voidOf(body: string): GatewayOutcome | undefined {
  const { status, voidedAmountMinor } = fieldsOf(body);
  if (status !== "VOIDED" || typeof voidedAmountMinor !== "string" || !/^\d{1,19}$/.test(voidedAmountMinor)) {
    return undefined;
  }
  const voidedMinorUnits = BigInt(voidedAmountMinor);
  return voidedMinorUnits > minorUnitsMax ? undefined : { $typeName: "GatewayVoidConfirmed", voidedMinorUnits };
}

function fieldsOf(body: string): Readonly<Record<string, unknown>> {
  try {
    const parsed: unknown = JSON.parse(body);
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/**
 * The wait that a Retry-After header asks for (RFC 9110 §10.2.3: seconds, or a date); 0 where there is none that can be
 * read, at most an hour. A date is compared with the answer's own Date where it has one, since clocks differ.
 */
export function retryAfterMs(headers: Headers, nowMs: number): number {
  const value = headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(value)) return Math.min(Number(value) * 1_000, retryAfterMaxMs);
  const untilMs = Date.parse(value);
  if (Number.isNaN(untilMs)) return 0;
  const answeredMs = Date.parse(headers.get("date") ?? "");
  const waitMs = untilMs - (Number.isNaN(answeredMs) ? nowMs : answeredMs);
  return Math.min(Math.max(waitMs, 0), retryAfterMaxMs);
}
