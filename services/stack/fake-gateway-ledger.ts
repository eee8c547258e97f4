/** The fake gateway's ledger: what it was asked, and what it charged and gave back. An SQLite file. */
import { Database, type SQLQueryBindings } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";

/** One line of the ledger: an authorisation with its current status, or the void of an order. */
export interface LedgerEntry {
  readonly sequence: number;
  readonly kind: "AUTHORIZATION" | "VOID";
  readonly orderId: string;
  readonly idempotencyKey: string;
  readonly authorizationId: string | null;
  readonly status: "AUTHORIZED" | "DECLINED" | "VOIDED";
  readonly reason: string | null;
  /** Minor units, decimal. For `VOID`: the sum given back. */
  readonly amountMinor: string;
  readonly currency: string | null;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

export interface AuthorizationRequest {
  readonly orderId: string;
  readonly amountMinor: string;
  readonly currency: string;
  readonly paymentMethod: string;
}

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

/** Every transaction is on the disk when its method returns. */
export class Ledger {
  readonly #database: Database;

  /** Opens the file, and creates it if it is missing. */
  constructor(file: string) {
    mkdirSync(dirname(file), { recursive: true });
    this.#database = new Database(file, { create: true, strict: true });
    this.#database.run("PRAGMA journal_mode = WAL");
    this.#database.run("PRAGMA synchronous = FULL");
    this.#database.run("PRAGMA busy_timeout = 5000");
    this.#database.run(schema);
  }

  /** Records that a key was used with these parameters. `MISUSED`: it was used with other parameters before. */
  recordRequest(key: string, parameters: string): "NEW" | "REPEATED" | "MISUSED" {
    return this.#transaction(() => {
      const known = this.#database
        .query<{ parameters: string }, [string]>("SELECT parameters FROM request WHERE idempotency_key = ?")
        .get(key);
      if (known !== null) return known.parameters === parameters ? "REPEATED" : "MISUSED";
      this.#database.query("INSERT INTO request (idempotency_key, parameters) VALUES (?, ?)").run(key, parameters);
      return "NEW";
    });
  }

  /**
   * Records the outcome for a key once and returns the recorded entry. Returns undefined if the order was voided before.
   * @param declineReason null to authorise.
   */
  authorize(key: string, request: AuthorizationRequest, declineReason: string | null): LedgerEntry | undefined {
    return this.#transaction(() => {
      const recorded = this.findByKey(key);
      if (recorded !== null) return recorded;
      if (this.#findVoid(request.orderId) !== undefined) return undefined;
      this.#insert({
        kind: "AUTHORIZATION",
        orderId: request.orderId,
        idempotencyKey: key,
        authorizationId: declineReason === null ? Bun.randomUUIDv7() : null,
        status: declineReason === null ? "AUTHORIZED" : "DECLINED",
        reason: declineReason,
        amountMinor: request.amountMinor,
        currency: request.currency,
      });
      return this.findByKey(key) ?? undefined;
    });
  }

  /** Voids the order's authorisations and rules out later ones. Returns the amount given back. */
  voidOrder(key: string, orderId: string): string {
    return this.#transaction(() => {
      const voided = this.#findVoid(orderId);
      if (voided !== undefined) return voided.amountMinor;
      const authorized = this.findByOrder(orderId).filter((entry) => entry.status === "AUTHORIZED");
      const amountMinor = authorized.reduce((sum, entry) => sum + BigInt(entry.amountMinor), 0n).toString();
      this.#database
        .query(
          "UPDATE entry SET status = 'VOIDED' WHERE order_id = ? AND kind = 'AUTHORIZATION' AND status = 'AUTHORIZED'",
        )
        .run(orderId);
      this.#insert({
        kind: "VOID",
        orderId,
        idempotencyKey: key,
        authorizationId: null,
        status: "VOIDED",
        reason: null,
        amountMinor,
        currency: authorized[0]?.currency ?? null,
      });
      return amountMinor;
    });
  }

  findByKey(key: string): LedgerEntry | null {
    return this.#select<[string]>("WHERE idempotency_key = ?").get(key);
  }

  /** The order's entries, oldest first. */
  findByOrder(orderId: string): readonly LedgerEntry[] {
    return this.#select<[string]>("WHERE order_id = ? ORDER BY sequence").all(orderId);
  }

  /** At most `limit` entries with a sequence above `after`. */
  page(after: number, limit: number): readonly LedgerEntry[] {
    return this.#select<[number, number]>("WHERE sequence > ? ORDER BY sequence LIMIT ?").all(after, limit);
  }

  close(): void {
    this.#database.close();
  }

  #findVoid(orderId: string): LedgerEntry | undefined {
    return this.findByOrder(orderId).find((entry) => entry.kind === "VOID");
  }

  #insert(entry: Omit<LedgerEntry, "sequence" | "createdAt">): void {
    this.#database
      .query(
        `INSERT INTO entry (kind, order_id, idempotency_key, authorization_id, status, reason, amount_minor, currency, created_at)
         VALUES ($kind, $orderId, $idempotencyKey, $authorizationId, $status, $reason, $amountMinor, $currency, $createdAt)`,
      )
      .run({ ...entry, createdAt: new Date().toISOString() });
  }

  /** Prepared once for each condition: `query` caches by the statement's text. */
  #select<Parameters extends SQLQueryBindings[]>(condition: string) {
    return this.#database.query<LedgerEntry, Parameters>(`SELECT ${entryColumns} FROM entry ${condition}`);
  }

  #transaction<T>(work: () => T): T {
    return this.#database.transaction(work)();
  }
}
