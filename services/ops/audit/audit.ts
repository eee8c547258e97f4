/**
 * The auditor: checks the promises of design §8 on a live system, from the databases, the topic and the payment
 * gateway's ledger. A moving system has no global snapshot, so whatever looks wrong is read again from all sources until
 * it is the same at two readings, and is reported only if it is still wrong then.
 */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { KafkaOptions } from "../../../relay/kafka/client.ts";
import { outboxArchiveTableName, outboxTableName } from "../../../relay/tables.ts";
import { sleep } from "../../kit/backoff.ts";
import { isFinal } from "../../order/domain.ts";
import {
  type Databases,
  endOfPage,
  findParking,
  type OrderBooks,
  type ParkingServices,
  readDatabases,
  type Selection,
  services,
} from "./books.ts";
import { openLedgerBooks } from "./ledger.ts";
import {
  type Finding,
  judge,
  type OldestEvent,
  type PromiseId,
  promiseIds,
  promises,
  type Surroundings,
} from "./promises.ts";
import { judgeStock } from "./stock.ts";
import { openTopicBooks } from "./topic.ts";

/** Where the auditor looks. */
export interface AuditSources {
  readonly databases: Databases;
  readonly kafka: KafkaOptions;
  readonly topic: string;
  readonly gatewayUrl: string;
}

export interface AuditOptions extends AuditSources {
  /**
   * What has not come to its end after this time breaks I4. Default 600,000: twice the time after which Order gives an
   * order up by default.
   */
  readonly overdueAfterMs?: number;
  /** Orders that a client got an answer for: each must exist. */
  readonly acknowledged?: readonly string[];
  /** Findings of each promise that are shown; all are counted. Default 20. */
  readonly findingsMax?: number;
  /** Between two readings of what looks wrong. Default 2,000. */
  readonly settleMs?: number;
  /** Ends the audit early, with an AbortError. */
  readonly signal?: AbortSignal;
}

/** What was found about one promise. */
export interface PromiseReport {
  readonly promise: PromiseId;
  readonly title: string;
  /** How many of what were checked. */
  readonly checked: number;
  readonly unit: string;
  /** All findings; the first of them are in `findings`. */
  readonly broken: number;
  readonly findings: readonly Finding[];
}

export interface AuditReport {
  /** No promise is broken. */
  readonly ok: boolean;
  readonly startedAt: string;
  readonly tookMs: number;
  readonly promises: readonly PromiseReport[];
  /** Orders that wait for an operator, and why: nothing is broken by that. The first of `hinderedCount`. */
  readonly hindered: readonly { readonly orderId: string; readonly why: string }[];
  readonly hinderedCount: number;
  /** Orders that looked wrong and changed at every reading, so that nothing can be said of them. The first of all. */
  readonly unsettled: readonly string[];
  readonly unsettledCount: number;
  /** How many orders looked wrong at first. */
  readonly suspects: number;
  readonly records: number;
  readonly duplicateRecords: number;
}

/** An auditor that remembers the topic and the ledger from one audit to the next. */
export interface Auditor {
  /** @throws Error when a source is away: then nothing is known. */
  run(): Promise<AuditReport>;
  close(): Promise<void>;
}

const pageSize = 1_000;
const suspectsPageSize = 500;
/** Half a minute of changes, at the default time between two readings. */
const readingsMax = 15;

const units: Readonly<Record<PromiseId, string>> = {
  I1: "orders",
  I2: "SKUs",
  I3: "authorisations",
  I4: "orders",
  I5: "final orders",
  I6: "records",
  I7: "inbox rows",
  I9: "outbox rows",
};

/** One audit. 100,000 orders take about half a minute and 400 MB, however often their events were delivered. */
export async function audit(options: AuditOptions): Promise<AuditReport> {
  const auditor = await openAuditor(options);
  try {
    return await auditor.run();
  } finally {
    await auditor.close();
  }
}

/** Starts reading the topic. @throws Error when no broker answers. */
export async function openAuditor(options: AuditOptions): Promise<Auditor> {
  const { databases, kafka, gatewayUrl, signal } = options;
  const { overdueAfterMs = 600_000, settleMs = 2_000, findingsMax = 20, acknowledged = [] } = options;
  const topic = await openTopicBooks(kafka, options.topic);
  const ledger = openLedgerBooks(gatewayUrl);

  async function lookAround(): Promise<Surroundings> {
    await topic.catchUp();
    const committed = await everyService((service) => topic.committed(service));
    const oldest = await everyService((service) => readOldest(databases, service));
    return { overdueAfterMs, retainedSince: topic.retainedSince(), committed, oldest };
  }

  /** The databases first: what they say was published is on the topic by the time that the topic is read. */
  async function readBooks(parking: ParkingServices, selection: Selection): Promise<readonly OrderBooks[]> {
    const rows = await readDatabases(databases, parking, selection);
    await Promise.all([
      topic.catchUp(),
      "orderIds" in selection ? ledger.refresh(selection.orderIds) : ledger.catchUp(),
    ]);
    return Array.from(rows.values(), (row) => ({
      ...row,
      topic: topic.of(row.orderId),
      ledger: ledger.of(row.orderId),
    }));
  }

  return {
    async run() {
      const startedAt = new Date();
      const result = createResult(findingsMax);
      const parking = await findParking(databases);
      const suspects = new Set<string>();
      const seen = new Set<string>();

      let surroundings = await lookAround();
      await ledger.catchUp();
      for (let after: string | undefined = ""; after !== undefined; ) {
        signal?.throwIfAborted();
        const upTo: string | undefined = await endOfPage(databases, after, pageSize);
        for (const books of await readBooks(parking, { after, upTo })) {
          seen.add(books.orderId);
          result.count(books);
          const { findings, hindrance } = judge(books, surroundings);
          if (findings.length > 0) suspects.add(books.orderId);
          if (hindrance !== undefined) result.hindered(books.orderId, hindrance);
        }
        after = upTo;
      }
      for (const orderIds of [topic.orderIds(), ledger.orderIds()]) {
        for (const orderId of orderIds) if (!seen.has(orderId)) suspects.add(orderId);
      }

      let waiting = [...suspects];
      let before = new Map<string, string>();
      for (let reading = 1; waiting.length > 0 && reading <= readingsMax; reading++) {
        if (reading > 1) await sleep(settleMs, signal);
        surroundings = await lookAround();
        const now = new Map<string, string>();
        for (let first = 0; first < waiting.length; first += suspectsPageSize) {
          signal?.throwIfAborted();
          for (const books of await readBooks(parking, { orderIds: waiting.slice(first, first + suspectsPageSize) })) {
            const { findings } = judge(books, surroundings);
            const print = fingerprint(books);
            if (findings.length === 0) continue;
            if (before.get(books.orderId) === print) result.report(findings);
            else now.set(books.orderId, print);
          }
        }
        waiting = [...now.keys()];
        before = now;
      }

      result.report(await missingOrders(databases, acknowledged));
      result.report(await doubledRequests(databases));
      result.checked.I1 += acknowledged.length;
      const stock = await judgeStock(databases);
      result.checked.I2 = stock.checked;
      if (stock.findings.length > 0) {
        await sleep(settleMs, signal);
        const again = new Set((await judgeStock(databases)).findings.map(({ subject, what }) => `${subject}: ${what}`));
        result.report(stock.findings.filter(({ subject, what }) => again.has(`${subject}: ${what}`)));
      }
      signal?.throwIfAborted();

      const { records, duplicates } = topic.counts();
      return {
        ...result.toReport(),
        startedAt: startedAt.toISOString(),
        tookMs: Date.now() - startedAt.getTime(),
        unsettled: waiting.slice(0, findingsMax),
        unsettledCount: waiting.length,
        suspects: suspects.size,
        records,
        duplicateRecords: duplicates,
      };
    },
    close: () => topic.close(),
  };
}

/** What an audit adds up. */
function createResult(findingsMax: number) {
  const each = <T>(value: () => T) => Object.fromEntries(promiseIds.map((id) => [id, value()])) as Record<PromiseId, T>;
  const checked = each(() => 0);
  const broken = each(() => 0);
  const found = each((): Finding[] => []);
  const hindered: { orderId: string; why: string }[] = [];
  let hinderedCount = 0;
  return {
    checked,
    count(books: OrderBooks) {
      const { orderRow } = books;
      if (orderRow !== undefined) {
        checked.I1++;
        checked.I4++;
        if (isFinal(orderRow.status)) checked.I5++;
      }
      checked.I3 += books.ledger.authorizations.length;
      checked.I6 += books.topic.length;
      for (const service of services) {
        checked.I7 += books[service].inbox.length;
        checked.I9 += books[service].events.length;
      }
    },
    hindered(orderId: string, why: string) {
      hinderedCount++;
      if (hindered.length < findingsMax) hindered.push({ orderId, why });
    },
    report(findings: readonly Finding[]) {
      for (const finding of findings) {
        broken[finding.promise]++;
        const shown = found[finding.promise];
        if (shown.length < findingsMax) shown.push(finding);
      }
    },
    toReport() {
      return {
        ok: promiseIds.every((id) => broken[id] === 0),
        promises: promiseIds.map((promise) => ({
          promise,
          title: promises[promise],
          checked: checked[promise],
          unit: units[promise],
          broken: broken[promise],
          findings: found[promise],
        })),
        hindered,
        hinderedCount,
      };
    },
  };
}

async function everyService<T>(read: (service: ServiceName) => Promise<T>): Promise<Readonly<Record<ServiceName, T>>> {
  const [order, inventory, payment] = await Promise.all([read("order"), read("inventory"), read("payment")]);
  return { order, inventory, payment };
}

async function readOldest(databases: Databases, service: ServiceName): Promise<OldestEvent> {
  const first = (table: string) =>
    `(SELECT event.seq AS sequence, event.occurred_at AS occurredAt FROM ${table} AS event ORDER BY event.seq LIMIT 1)`;
  const [row] = await databases[service].query<{ sequence: number | string; occurredAt: Date }>(
    `${first(outboxTableName(service))} UNION ALL ${first(outboxArchiveTableName(service))} ORDER BY sequence LIMIT 1`,
  );
  if (row === undefined) return { sequence: Number.POSITIVE_INFINITY, occurredAt: new Date(0) };
  return { sequence: Number(row.sequence), occurredAt: row.occurredAt };
}

/** What changes at every try, or with every reading, tells nothing about right and wrong. */
const volatile = new Set(["readAt", "attempts", "nextAttemptAt", "retryCount", "lastError"]);

function fingerprint(books: OrderBooks): string {
  return Bun.hash(JSON.stringify(books, (name, value) => (volatile.has(name) ? undefined : value))).toString(36);
}

/** A commit comes before its answer, so one look is enough. */
async function missingOrders(databases: Databases, acknowledged: readonly string[]): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (let first = 0; first < acknowledged.length; first += pageSize) {
    const page = acknowledged.slice(first, first + pageSize);
    const rows = await databases.order.query<{ id: string }>(
      "SELECT order_id AS id FROM orders WHERE order_id IN (?)",
      [page],
    );
    const found = new Set(rows.map(({ id }) => id));
    for (const orderId of page.filter((id) => !found.has(id))) {
      findings.push({
        promise: "I1",
        subject: orderId,
        what: "the order was acknowledged, and is not there",
        rows: {},
      });
    }
  }
  return findings;
}

async function doubledRequests(databases: Databases): Promise<readonly Finding[]> {
  const rows = await databases.order.query<{ owner: string; request_id: string; orders: string }>(
    `SELECT owner, request_id, GROUP_CONCAT(order_id ORDER BY order_id) AS orders FROM orders
      GROUP BY owner, request_id HAVING COUNT(*) > 1 LIMIT ?`,
    [pageSize],
  );
  return rows.map((row) => ({
    promise: "I1",
    subject: row.request_id,
    what: "one request made several orders",
    rows: { owner: row.owner, orders: row.orders.split(",") },
  }));
}
