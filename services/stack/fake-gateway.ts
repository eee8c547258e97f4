/**
 * The payment gateway of the local stack: a process with a durable ledger of its own, as far from our services as a
 * real one. It is keyed by idempotency key and knows orders as data only: two keys for one order are two charges.
 */
import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { sleep } from "../kit/backoff.ts";
import { environment, port, readConfig, text } from "../kit/config.ts";

const slowMs = 1_000;
const hangMs = 30_000;
const pageSizeMax = 1_000;

/** One line of the ledger. An authorisation's status is its present one; `VOID` tells that an order was voided. */
export interface LedgerEntry {
  readonly sequence: number;
  readonly kind: "AUTHORIZATION" | "VOID";
  readonly orderId: string;
  readonly idempotencyKey: string;
  readonly authorizationId: string | null;
  readonly status: "AUTHORIZED" | "DECLINED" | "VOIDED";
  readonly reason: string | null;
  /** Minor units, decimal. For `VOID`: what was given back. */
  readonly amountMinor: string;
  readonly currency: string | null;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

interface AuthorizationRequest {
  readonly orderId: string;
  readonly amountMinor: string;
  readonly currency: string;
  readonly paymentMethod: string;
}

/** A request that is not understood; answered 400. */
class BadRequest extends Error {}

const schema = `
  CREATE TABLE IF NOT EXISTS request (
    idempotency_key TEXT PRIMARY KEY,
    parameters TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS entry (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    order_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL UNIQUE,
    authorization_id TEXT,
    status TEXT NOT NULL,
    reason TEXT,
    amount_minor TEXT NOT NULL,
    currency TEXT,
    created_at TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS entry_order_id ON entry (order_id);
  CREATE UNIQUE INDEX IF NOT EXISTS entry_void ON entry (order_id) WHERE kind = 'VOID';
`;

const entryColumns = `sequence, kind, order_id AS orderId, idempotency_key AS idempotencyKey,
  authorization_id AS authorizationId, status, reason, amount_minor AS amountMinor, currency, created_at AS createdAt`;

/** Opens the ledger file, makes it when it is missing. Every transaction is on the disk when it returns. */
function openLedger(file: string) {
  mkdirSync(dirname(file), { recursive: true });
  const database = new Database(file, { create: true, strict: true });
  database.run("PRAGMA journal_mode = WAL");
  database.run("PRAGMA synchronous = FULL");
  database.run("PRAGMA busy_timeout = 5000");
  database.run(schema);

  const findRequest = database.query<{ parameters: string }, [string]>(
    "SELECT parameters FROM request WHERE idempotency_key = ?",
  );
  const insertRequest = database.query("INSERT INTO request (idempotency_key, parameters) VALUES (?, ?)");
  const findByKey = database.query<LedgerEntry, [string]>(
    `SELECT ${entryColumns} FROM entry WHERE idempotency_key = ?`,
  );
  const findByOrder = database.query<LedgerEntry, [string]>(
    `SELECT ${entryColumns} FROM entry WHERE order_id = ? ORDER BY sequence`,
  );
  const findPage = database.query<LedgerEntry, [number, number]>(
    `SELECT ${entryColumns} FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?`,
  );
  const insertEntry = database.query(
    `INSERT INTO entry (kind, order_id, idempotency_key, authorization_id, status, reason, amount_minor, currency, created_at)
     VALUES ($kind, $orderId, $idempotencyKey, $authorizationId, $status, $reason, $amountMinor, $currency, $createdAt)`,
  );
  const voidAuthorizations = database.query(
    "UPDATE entry SET status = 'VOIDED' WHERE order_id = ? AND kind = 'AUTHORIZATION' AND status = 'AUTHORIZED'",
  );
  const voidOf = (orderId: string) => findByOrder.all(orderId).find((entry) => entry.kind === "VOID");

  return {
    /** Notes that a key was used with these parameters: NEW, REPEATED, or MISUSED when it was used with others. */
    noteRequest: database.transaction((key: string, parameters: string): "NEW" | "REPEATED" | "MISUSED" => {
      const known = findRequest.get(key);
      if (known !== null) return known.parameters === parameters ? "REPEATED" : "MISUSED";
      insertRequest.run(key, parameters);
      return "NEW";
    }),
    /** Records the outcome for a key once, and returns what is recorded; undefined when the order was voided before. */
    authorize: database.transaction(
      (key: string, request: AuthorizationRequest, declinedBecause: string | null): LedgerEntry | undefined => {
        const recorded = findByKey.get(key);
        if (recorded !== null) return recorded;
        if (voidOf(request.orderId) !== undefined) return undefined;
        insertEntry.run({
          kind: "AUTHORIZATION",
          orderId: request.orderId,
          idempotencyKey: key,
          authorizationId: declinedBecause === null ? Bun.randomUUIDv7() : null,
          status: declinedBecause === null ? "AUTHORIZED" : "DECLINED",
          reason: declinedBecause,
          amountMinor: request.amountMinor,
          currency: request.currency,
          createdAt: new Date().toISOString(),
        });
        return findByKey.get(key) ?? undefined;
      },
    ),
    /** Voids all that is authorised for the order, and all that ever might be. Returns the amount that was given back. */
    voidOrder: database.transaction((key: string, orderId: string): string => {
      const voided = voidOf(orderId);
      if (voided !== undefined) return voided.amountMinor;
      const live = findByOrder.all(orderId).filter((entry) => entry.status === "AUTHORIZED");
      const amountMinor = live.reduce((sum, entry) => sum + BigInt(entry.amountMinor), 0n).toString();
      voidAuthorizations.run(orderId);
      insertEntry.run({
        kind: "VOID",
        orderId,
        idempotencyKey: key,
        authorizationId: null,
        status: "VOIDED",
        reason: null,
        amountMinor,
        currency: live[0]?.currency ?? null,
        createdAt: new Date().toISOString(),
      });
      return amountMinor;
    }),
    findByKey: (key: string) => findByKey.get(key),
    findByOrder: (orderId: string) => findByOrder.all(orderId),
    page: (after: number, limit: number) => findPage.all(after, limit),
    close: () => database.close(),
  };
}

type Ledger = ReturnType<typeof openLedger>;

/** A running gateway. */
export interface Gateway {
  readonly url: string;
  close(): Promise<void>;
}

/** Serves the gateway over the ledger file. Port 0 lets the system choose. */
export function serveGateway(options: {
  readonly host: string;
  readonly port: number;
  readonly ledgerFile: string;
}): Gateway {
  const ledger = openLedger(options.ledgerFile);
  const server = Bun.serve({
    hostname: options.host,
    port: options.port,
    // Above the time that a hanging call hangs.
    idleTimeout: (2 * hangMs) / 1_000,
    maxRequestBodySize: 65_536,
    routes: {
      "/livez": { GET: () => Response.json({ alive: true }) },
      "/v1/authorizations": { POST: (request) => authorize(ledger, request) },
      "/v1/voids": { POST: (request) => voidOrder(ledger, request) },
      "/v1/authorizations/:key": {
        GET(request) {
          const entry = ledger.findByKey(request.params.key);
          if (entry?.kind !== "AUTHORIZATION") return fault(404, "There is no authorization with this key.");
          return Response.json({ orderId: entry.orderId, ...shownAuthorization(entry) });
        },
      },
      "/v1/orders/:orderId": {
        GET(request) {
          const { orderId } = request.params;
          const entries = ledger.findByOrder(orderId);
          return Response.json({
            orderId,
            voided: entries.some((entry) => entry.kind === "VOID"),
            authorizations: entries.filter((entry) => entry.kind === "AUTHORIZATION").map(shownAuthorization),
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
    fetch: () => fault(404, "There are /v1/authorizations, /v1/voids, /v1/orders/{orderId}, /v1/ledger and /livez."),
    error(error) {
      if (error instanceof BadRequest) return fault(400, error.message);
      console.error(error);
      return fault(500, "The gateway failed; ask again with the same key.");
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
    orderId: field(body, "orderId", /^\S{1,128}$/, "1 to 128 characters with no space"),
    amountMinor: field(body, "amountMinor", /^[1-9]\d{0,17}$/, "a positive whole number of minor units, as a string"),
    currency: field(body, "currency", /^[A-Z]{3}$/, "an ISO 4217 code like EUR"),
    paymentMethod: field(body, "paymentMethod", /^[\w-]{1,64}$/, "a token like pm_ok"),
  };
  const use = ledger.noteRequest(key, JSON.stringify({ operation: "authorize", ...authorization }));
  if (use === "MISUSED") return misused();
  const isFirst = use === "NEW";
  const declinedBecause = declineReason(authorization.paymentMethod);
  const decide = () => {
    const entry = ledger.authorize(key, authorization, declinedBecause);
    return entry === undefined ? Response.json({ status: "VOIDED" }, { status: 409 }) : answerTo(entry);
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
  const orderId = field(body, "orderId", /^\S{1,128}$/, "1 to 128 characters with no space");
  if (ledger.noteRequest(key, JSON.stringify({ operation: "void", orderId })) === "MISUSED") return misused();
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

/** What is recorded for a key, as it stands now: an authorisation that was voided since is VOIDED. */
function answerTo(entry: LedgerEntry): Response {
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

function shownAuthorization(entry: LedgerEntry) {
  const { idempotencyKey, authorizationId, status, amountMinor, currency, createdAt } = entry;
  return { idempotencyKey, authorizationId, status, amountMinor, currency, createdAt };
}

/** Never answers, as far as any client's patience goes. */
async function hang(request: Request): Promise<Response> {
  await sleep(hangMs, request.signal);
  return fault(504, "The gateway did not answer in time.");
}

function misused(): Response {
  return fault(422, "This Idempotency-Key was used with other parameters before.");
}

function fault(status: number, message: string): Response {
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
  const gateway = serveGateway(config);
  console.log(`The payment gateway listens on ${gateway.url}.`);
  const close = () => gateway.close().then(() => process.exit(0));
  process.once("SIGTERM", close);
  process.once("SIGINT", close);
}
