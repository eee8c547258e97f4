/**
 * An administrator breaks something while events flow from an outbox through a topic into an inbox. Neither side counts it
 * against an event, and both go on by themselves once it is repaired.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Registry as Metrics } from "prom-client";
import { eventRegistry } from "../../proto/event-table.ts";
import type { OrderCompleted } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { type Database, insertRows, openDatabase } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { insertStatements, type SqlValue } from "../../services/kit/statements.ts";
import { administer, createServiceSchema, eventually, type TestSchema } from "../../services/kit/testing.ts";
import { startConsumer } from "../inbox/consumer.ts";
import type { ReceivedEvent } from "../inbox/handler.ts";
import { createInbox } from "../inbox/inbox.ts";
import { openAdmin } from "../kafka/admin.ts";
import { openProducer } from "../kafka/producer.ts";
import { createTestTopic, testKafka } from "../testing.ts";
import { createOutbox } from "./append.ts";
import { createRelayMetrics } from "./metrics.ts";
import { claimOwnership } from "./ownership.ts";
import { startRelaySource } from "./start-relay.ts";
import { openOutboxStore } from "./store.ts";

const table = "order_outbox_event";
const type = "shop.order.v1.OrderCompleted";
const user = `test_${crypto.randomUUID().slice(0, 8)}`;
const account = `'${user}'@'%'`;

let publisher: TestSchema;
let receiver: TestSchema;
let outbox: Database;
let topic: string;
const metrics = new Metrics();
const closers: (() => Promise<unknown>)[] = [];

/** The schema's URL for an account that, unlike the administrator's, `read_only` and REVOKE affect. */
function urlOf(schema: TestSchema): string {
  const url = new URL(schema.url);
  url.username = user;
  url.password = user;
  return url.href;
}

const inboxTables = ["inventory_inbox_event", "inventory_parked_key", "inventory_parked_event", "effect"];
// Table by table, because open connections keep a right to a whole schema after it is revoked.
const grantOutbox = () => administer(`GRANT SELECT, UPDATE, DELETE ON ${publisher.name}.${table} TO ${account}`);
const grantInbox = () =>
  Promise.all(
    inboxTables.map((name) =>
      administer(`GRANT SELECT, INSERT, UPDATE, DELETE ON ${receiver.name}.${name} TO ${account}`),
    ),
  );

beforeAll(async () => {
  [publisher, receiver, topic] = await Promise.all([
    createServiceSchema("order"),
    createServiceSchema("inventory"),
    createTestTopic(3),
  ]);
  outbox = publisher.open(2);
  await administer(`CREATE TABLE ${receiver.name}.effect (order_id VARCHAR(128) NOT NULL)`);
  await administer(`CREATE USER ${account} IDENTIFIED BY '${user}'`);
  await Promise.all([grantOutbox(), grantInbox()]);
  startRelay();
  await startService();
});
afterAll(async () => {
  await Promise.all(closers.map((close) => close()));
  await Promise.all([publisher.drop(), receiver.drop()]);
  await administer(`DROP USER ${account}`);
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics([topic]);
  await admin.close();
});

function startRelay(): void {
  const databaseUrl = urlOf(publisher);
  const relay = startRelaySource({
    name: "order",
    topic,
    ceSource: "/shop/order",
    encoding: "protobuf",
    registry: eventRegistry,
    store: openOutboxStore({ databaseUrl, table }),
    ownership: claimOwnership({ databaseUrl, schema: publisher.name, table, log: silentLogger }),
    openProducer: () => openProducer({ ...testKafka(), timeoutMs: 2_000 }),
    log: silentLogger,
    metrics: createRelayMetrics(metrics),
    pollIntervalMs: 50,
  });
  closers.push(relay.close);
}

/** Starts a service that inserts one row for each event. */
async function startService(): Promise<void> {
  const database = openDatabase({ url: urlOf(receiver), connectionsMax: 4 });
  const inbox = createInbox<OrderCompleted>({
    service: "inventory",
    database,
    registry: eventRegistry,
    handles: new Set([type]),
    records: "handled",
    keyOf: ({ orderId }) => keyOf(orderId),
    async handle(_, events: readonly ReceivedEvent<OrderCompleted>[]) {
      const rows = events.map(({ message }) => [message.orderId]);
      return { writes: insertStatements("effect", ["order_id"], rows), publish: [], ignored: [] };
    },
    outbox: createOutbox({ service: "inventory", registry: eventRegistry }),
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId: () => Bun.randomUUIDv7(),
    log: silentLogger,
    metrics,
  });
  const kafka = testKafka();
  const group = `test-${crypto.randomUUID()}`;
  const consumer = await startConsumer({
    service: group,
    topic,
    kafka,
    inbox,
    log: silentLogger,
    metrics,
    onCrash(error) {
      throw error;
    },
  });
  closers.push(async () => {
    await consumer.close();
    await database.close();
  });
}

const keyOf = (orderId: string) => `key-${Number(orderId.slice("order-".length)) % 20}`;

let number = 0;
/** Inserts events of 20 keys, each with its own effect. The admin account is not affected by what is broken. */
async function publish(count: number): Promise<readonly string[]> {
  const rows = Array.from({ length: count }, (): SqlValue[] => {
    const orderId = `order-${number++}`;
    return [Bun.randomUUIDv7(), keyOf(orderId), type, JSON.stringify({ orderId })];
  });
  await insertRows(outbox, table, ["id", "aggregate_id", "type", "payload"], rows);
  return rows.map(([, , , payload]) => JSON.parse(String(payload)).orderId);
}

async function figure(name: string): Promise<number> {
  const values = (await metrics.getSingleMetric(name)?.get())?.values ?? [];
  return values.reduce((sum, { value }) => sum + value, 0);
}

async function expectEffectsOf(orderIds: readonly string[]): Promise<void> {
  await eventually(async () => {
    const rows = await administer(`SELECT order_id FROM ${receiver.name}.effect WHERE order_id IN (?)`, [orderIds]);
    expect(rows.map(({ order_id }) => order_id).sort()).toEqual(orderIds.toSorted());
  }, 25_000);
}

/** Expects that no event was blamed: no retry, none failed or dead, none parked. */
async function expectNoEventBlamed(): Promise<void> {
  expect(
    await administer(
      `SELECT * FROM ${publisher.name}.${table} WHERE retry_count > 0 OR status NOT IN ('PENDING', 'PUBLISHED')`,
    ),
  ).toEqual([]);
  for (const parked of ["inventory_parked_key", "inventory_parked_event"]) {
    expect(await administer(`SELECT * FROM ${receiver.name}.${parked}`)).toEqual([]);
  }
}

const failureMetrics = { relay: "relay_failures_total", service: "inbox_batch_failures_total" } as const;

interface Breakage {
  readonly what: string;
  /** The side that cannot go on meanwhile. */
  readonly stops: keyof typeof failureMetrics;
  readonly breaks: () => Promise<unknown>;
  readonly repairs: () => Promise<unknown>;
}

const withAdmin = async (work: (admin: Awaited<ReturnType<typeof openAdmin>>) => Promise<unknown>) => {
  const admin = await openAdmin(testKafka());
  await work(admin).finally(() => admin.close());
};

const breakages: readonly Breakage[] = [
  {
    what: "the relay's right to mark is revoked",
    stops: "relay",
    breaks: () => administer(`REVOKE UPDATE ON ${publisher.name}.${table} FROM ${account}`),
    repairs: grantOutbox,
  },
  {
    what: "the service's right to its inbox is revoked",
    stops: "service",
    breaks: () => administer(`REVOKE INSERT ON ${receiver.name}.inventory_inbox_event FROM ${account}`),
    repairs: grantInbox,
  },
  {
    what: "a column of the outbox is dropped",
    stops: "relay",
    breaks: () => administer(`ALTER TABLE ${publisher.name}.${table} DROP COLUMN headers`),
    repairs: () => administer(`ALTER TABLE ${publisher.name}.${table} ADD COLUMN headers TEXT NULL`),
  },
  {
    what: "a column of the inbox is dropped",
    stops: "service",
    breaks: () => administer(`ALTER TABLE ${receiver.name}.inventory_inbox_event DROP COLUMN batch_id`),
    repairs: () =>
      administer(`ALTER TABLE ${receiver.name}.inventory_inbox_event ADD COLUMN batch_id CHAR(36) NOT NULL`),
  },
  {
    what: "a column of the service's own table is dropped",
    stops: "service",
    breaks: () => administer(`ALTER TABLE ${receiver.name}.effect ADD COLUMN other INT, DROP COLUMN order_id`),
    repairs: () =>
      administer(`ALTER TABLE ${receiver.name}.effect ADD COLUMN order_id VARCHAR(128), DROP COLUMN other`),
  },
  {
    what: "the database is made read-only",
    stops: "relay",
    breaks: () => administer("SET GLOBAL read_only = ON"),
    repairs: () => administer("SET GLOBAL read_only = OFF"),
  },
  {
    what: "the topic is deleted",
    stops: "relay",
    breaks: () => withAdmin((admin) => admin.deleteTopics([topic])),
    repairs: () => withAdmin((admin) => admin.createTopics([{ topic, partitions: 3, replication: 1, config: {} }])),
  },
];

for (const { what, stops, breaks, repairs } of breakages) {
  test(`no event is blamed if ${what}, and everything goes on by itself once that is repaired`, async () => {
    await expectEffectsOf(await publish(60));
    let meanwhile: readonly string[] = [];
    await breaks();
    try {
      const before = await figure(failureMetrics[stops]);
      meanwhile = await publish(60);
      // Ten failures show that it is retried and keeps failing.
      await eventually(
        async () => expect(await figure(failureMetrics[stops])).toBeGreaterThanOrEqual(before + 10),
        20_000,
      );
      await expectNoEventBlamed();
    } finally {
      await repairs();
    }
    await expectEffectsOf([...meanwhile, ...(await publish(60))]);
    await expectNoEventBlamed();
    await eventually(async () =>
      expect(await administer(`SELECT DISTINCT status FROM ${publisher.name}.${table}`)).toEqual([
        { status: "PUBLISHED" } as never,
      ]),
    );
  }, 60_000);
}
