/** A host that freezes in the middle of a batch, on a real database and a real broker, with real processes. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { toOutboxRow, toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import { openProducer, type RecordProducer } from "../../relay/kafka/producer.ts";
import { createTestTopic, testKafka } from "../../relay/testing.ts";
import { environment } from "../kit/config.ts";
import type { Database } from "../kit/database.ts";
import { createServiceSchema, eventually, type TestSchema, testServers } from "../kit/testing.ts";

let schema: TestSchema;
let database: Database;
let topic: string;
let producer: RecordProducer;
const children: Bun.Subprocess[] = [];

beforeAll(async () => {
  schema = await createServiceSchema("inventory");
  database = schema.open();
  topic = await createTestTopic(1);
  producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
});
afterAll(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
    await child.exited;
  }
  await producer.close();
  await schema.drop();
});

/** Starts an instance. Resolves to its output so far. */
function startInventory(freezes: boolean) {
  const child = Bun.spawn([process.execPath, "services/inventory/testing-freezing-inventory.ts"], {
    cwd: join(import.meta.dir, "../.."),
    env: {
      ...environment(),
      KAFKA_BROKERS: testServers()
        .kafkaBrokers.map(({ host, port }) => `${host}:${port}`)
        .join(","),
      DATABASE_URL: schema.url,
      TOPIC: topic,
      FREEZES: String(freezes),
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  children.push(child);
  let output = "";
  void (async () => {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) output += chunk;
  })();
  return { child, output: () => output };
}

async function placeOrders(orderIds: readonly string[]): Promise<void> {
  const records = orderIds.map((orderId) => {
    const message = create(OrderPlacedSchema, { orderId, lines: [{ sku: "sku-a", quantity: 1 }] });
    const row = toOutboxRow({ id: Bun.randomUUIDv7(), aggregateId: orderId, message, headers: {} }, eventRegistry);
    return toRecord(
      { ...row, occurredAt: new Date(), seq: "1" },
      { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry },
    );
  });
  await producer.send(topic, records);
}

const reserved = async () => (await database.query("SELECT order_id FROM reservation WHERE status = 'HELD'")).length;

test("when an instance freezes in the middle of a batch, another goes on within 15 s; woken again, it does no harm", async () => {
  await database.execute("INSERT INTO stock (sku, initial, available) VALUES ('sku-a', 100, 100)");
  await placeOrders(["order-1", "order-2", "order-3"]);
  const frozen = startInventory(true);
  await eventually(async () => {
    const stat = await Bun.file(`/proc/${frozen.child.pid}/stat`).text();
    expect(stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3)).toBe("T");
  }, 20_000);
  expect(await reserved()).toBe(0);

  startInventory(false);
  // The frozen one holds the rows of the inbox, and the stock that the next order needs too.
  await placeOrders(["order-4"]);
  await eventually(async () => expect(await reserved()).toBe(4), 15_000);

  frozen.child.kill("SIGCONT");
  await eventually(() => expect(frozen.output()).toContain("batch failed"), 20_000);
  await placeOrders(["order-5"]);
  await eventually(async () => expect(await reserved()).toBe(5), 20_000);
  expect(await database.query("SELECT available, held, sold FROM stock")).toEqual([
    { available: 95, held: 5, sold: 0 },
  ]);
  expect(
    await database.query(
      "SELECT aggregate_id AS id, COUNT(*) AS events FROM inventory_outbox_event GROUP BY aggregate_id",
    ),
  ).toEqual([1, 2, 3, 4, 5].map((number) => ({ id: `order-${number}`, events: 1 })));
  expect(children.map(({ exitCode }) => exitCode)).toEqual([null, null]);
}, 90_000);
