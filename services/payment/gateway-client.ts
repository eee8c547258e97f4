/**
 * The HTTP client of the payment gateway. It requires two things of a gateway: authorise and void take an idempotency key,
 * and a void is terminal for its order, even if the gateway has never seen that order.
 */
import type { GatewayCall, GatewayOutcome } from "./domain.ts";

/** The answer to a call, or the lack of one. */
export interface GatewayAnswer {
  readonly outcome: GatewayOutcome;
  /** Set if the gateway asked for a pause (429). */
  readonly retryAfterMs?: number;
  /**
   * Set if the call was at fault, or the answer is not understood or is about something else. Alert on it; it never means
   * an authorisation or a decline.
   */
  readonly fault?: string;
}

/** Carries out a call. Never rejects: if the outcome is not known, it is GatewayUnknown. */
export type GatewayClient = (call: GatewayCall) => Promise<GatewayAnswer>;

/** The longest pause that a gateway may ask for. */
const retryAfterMaxMs = 3_600_000;
/**
 * Answers about credentials, URL or form of the request (RFC 9110 §15.5), which say nothing about the payment. 403 is not
 * among them: with it a gateway refuses a request that it has understood.
 */
const ownFaultStatuses: ReadonlySet<number> = new Set([401, 404, 405, 407, 408, 411, 413, 415, 421, 425, 431]);
/** The width of the column `authorization_id`. */
const authorizationIdLengthMax = 128;
/** The greatest BIGINT. */
const minorUnitsMax = 2n ** 63n - 1n;

/**
 * A client of the gateway at `url`.
 * @param options.timeoutMs from sending the request to reading the last byte of the answer.
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
      // Timed out, refused or cut off: the call may have succeeded.
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
    const result = call.kind === "authorise" ? authorizationOf(call, fieldsOf(body)) : voidOf(call, fieldsOf(body));
    return typeof result === "string"
      ? { outcome: unknown, fault: `answered 200 to ${call.kind} with ${result}` }
      : { outcome: result };
  }
  if (status === 429) return { outcome: unknown, retryAfterMs: retryAfterMs(headers, Date.now()) };
  if (status >= 500) return { outcome: unknown };
  if (call.kind === "authorise" && status === 402) return { outcome: { $typeName: "GatewayDeclined" } };
  if (call.kind === "authorise" && status === 409) return { outcome: { $typeName: "GatewayVoided" } };
  const fault = `answered ${status} to ${call.kind}`;
  // A void cannot be declined. If the gateway refuses it, it must be repeated.
  if (call.kind === "void" && status >= 400 && !ownFaultStatuses.has(status))
    return { outcome: { $typeName: "GatewayVoidRefused", refusal: fault }, fault };
  return { outcome: unknown, fault };
}

type Fields = Readonly<Record<string, unknown>>;

/** The authorisation in the body of an answer, or what is wrong with it. Amounts are left out: the text is logged. */
function authorizationOf({ orderId, terms: { amount } }: GatewayCall, fields: Fields): GatewayOutcome | string {
  const { status, authorizationId } = fields;
  if (status !== "AUTHORIZED" || typeof authorizationId !== "string") return "an unknown body";
  if (authorizationId === "" || authorizationId.length > authorizationIdLengthMax) return "an unknown body";
  if (fields.orderId !== orderId) return "another order";
  if (fields.amountMinor !== amount.minorUnits.toString()) return "another amount";
  if (fields.currency !== amount.currencyCode) return "another currency";
  return { $typeName: "GatewayAuthorized", authorizationId };
}

/** The confirmation in the body of an answer to a void, or what is wrong with it. */
function voidOf({ orderId, terms: { amount } }: GatewayCall, fields: Fields): GatewayOutcome | string {
  const { status, voidedAmountMinor } = fields;
  if (status !== "VOIDED" || typeof voidedAmountMinor !== "string" || !/^\d{1,19}$/.test(voidedAmountMinor)) {
    return "an unknown body";
  }
  const voidedMinorUnits = BigInt(voidedAmountMinor);
  if (voidedMinorUnits > minorUnitsMax) return "an unknown body";
  if (fields.orderId !== orderId) return "another order";
  // Nothing was charged, or all of it is given back. Less would leave money held for an order that failed.
  if (voidedMinorUnits > 0n && voidedMinorUnits < amount.minorUnits) return "a part of the amount";
  return { $typeName: "GatewayVoidConfirmed", voidedMinorUnits };
}

function fieldsOf(body: string): Fields {
  try {
    const parsed: unknown = JSON.parse(body);
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/**
 * The pause that a Retry-After header asks for (RFC 9110 §10.2.3: seconds or a date), at most an hour; 0 if it is missing
 * or malformed. A date is compared with the answer's own Date header if there is one, because clocks differ.
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
