/** Parking and redelivery on a real database, and partly on a real broker, with a handler that this test defines. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { Registry as Metrics } from "prom-client";
import type { EventRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { type OrderPlaced, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import type { Database } from "../../services/kit/database.ts";
import { silentLogger } from "../../services/kit/log.ts";
import { insertStatements } from "../../services/kit/statements.ts";
import { createServiceSchema, eventually, readCounters, type TestSchema } from "../../services/kit/testing.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { openProducer } from "../kafka/producer.ts";
import { createOutbox } from "../outbox/append.ts";
import { asTopicRecord, createTestTopic, testKafka } from "../testing.ts";
import { startConsumer } from "./consumer.ts";
import type { ReceivedEvent } from "./handler.ts";
import { createInbox } from "./inbox.ts";
import { listParked, requestRedelivery, showParked } from "./parked.ts";

// Any service's tables will do: the handler writes its effect into an extra table.
const service = "inventory";
let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema(service);
  database = schema.open(12);
  await database.execute(
    "CREATE TABLE effect (number INT NOT NULL AUTO_INCREMENT PRIMARY KEY, order_id VARCHAR(128), step VARCHAR(40))",
  );
});
afterAll(() => schema.drop());
beforeEach(async () => {
  for (const table of ["parked_key", "parked_event"]) await database.execute(`DELETE FROM ${service}_${table}`);
});

const newId = () => Bun.randomUUIDv7();
let offset = 0;

/** An event of an order; its effect is a row with `step`. */
function record(orderId: string, step: string): TopicRecord {
  const message = create(OrderPlacedSchema, { orderId, paymentMethod: step });
  const event = { id: newId(), aggregateId: orderId, message, headers: {} };
  return asTopicRecord(event, { ceSource: "/shop/order", offset: offset++ });
}

/** Runs in the handler for each event, and may throw. */
type Bug = (event: OrderPlaced) => void;
const noBug: Bug = () => undefined;

/** An inbox whose handler inserts a row and publishes an event for each event. A test can change its bug later. */
function open(options: { readonly bug?: Bug; readonly on?: Database } = {}) {
  const metrics = new Metrics();
  const batches: number[] = [];
  const change: { bug: Bug; slowMs: number; publishTo: string | undefined } = {
    bug: options.bug ?? noBug,
    slowMs: 0,
    publishTo: undefined,
  };
  const inbox = createInbox<OrderPlaced>({
    service,
    database: options.on ?? database,
    registry: eventRegistry,
    handles: new Set(["shop.order.v1.OrderPlaced"]),
    records: "handled",
    keyOf: ({ orderId }) => orderId,
    async handle(_, events: readonly ReceivedEvent<OrderPlaced>[]) {
      batches.push(events.length);
      for (const { message } of events) change.bug(message);
      if (change.slowMs > 0) await new Promise((resolve) => setTimeout(resolve, change.slowMs));
      const effects = events.map(({ message }) => [message.orderId, message.paymentMethod]);
      return {
        writes: insertStatements("effect", ["order_id", "step"], effects),
        publish: events.map(({ message }) => ({
          id: newId(),
          aggregateId: change.publishTo ?? message.orderId,
          message: create(OrderPlacedSchema, { orderId: message.orderId }),
          headers: {},
        })),
        ignored: events.filter(({ message }) => message.paymentMethod === "ignored").map(({ envelope }) => envelope.id),
      };
    },
    outbox: createOutbox({ service, registry: eventRegistry }),
    hints: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
    newId,
    log: silentLogger,
    metrics,
  });
  const metric = async (name: string, label?: string) => {
    const found = await metrics.getSingleMetric(name)?.get();
    const values = found?.values.filter((it) => label === undefined || Object.values(it.labels).includes(label));
    return values?.reduce((total, it) => total + it.value, 0) ?? 0;
  };
  return { inbox, metrics, metric, batches, change };
}

async function effectsOf(orderIds: readonly string[]): Promise<readonly string[]> {
  const rows = await database.query<{ step: string }>("SELECT step FROM effect WHERE order_id IN (?) ORDER BY number", [
    orderIds,
  ]);
  return rows.map((row) => row.step);
}

async function publishedFor(orderId: string): Promise<number> {
  const [row] = await database.query(`SELECT COUNT(*) AS n FROM ${service}_outbox_event WHERE aggregate_id = ?`, [
    orderId,
  ]);
  return Number(row?.n);
}

async function outcomesOf(key: string): Promise<readonly string[]> {
  const rows = await database.query<{ outcome: string }>(
    `SELECT outcome FROM ${service}_inbox_event WHERE aggregate_id = ? ORDER BY topic_offset`,
    [key],
  );
  return rows.map((row) => row.outcome);
}

const bugFor = (orderIds: readonly string[]): Bug => {
  const bad = new Set(orderIds);
  return ({ orderId }) => {
    if (bad.has(orderId)) throw new TypeError("lines is not iterable");
  };
};
const neighbours = (count: number) => Array.from({ length: count }, () => newId());
const stepsOf = async (key: string) => (await showParked(database, service, key))?.events.map(stepIn) ?? [];
const stepIn = ({ record: { value } }: { readonly record: TopicRecord }) =>
  fromBinary(OrderPlacedSchema, value ?? new Uint8Array()).paymentMethod;

describe("an event with a fault", () => {
  test("a faulty event in a batch of 200 is parked with the later events of its key, and other keys are handled", async () => {
    const bad = newId();
    const good = neighbours(197);
    const records = good.map((orderId) => record(orderId, "good"));
    records.splice(60, 0, record(bad, "one"));
    records.splice(61, 0, record(bad, "two"));
    records.splice(150, 0, record(bad, "three"));
    const attemptedOfBad: string[] = [];
    const { inbox, batches } = open({
      bug({ orderId, paymentMethod }) {
        if (orderId !== bad) return;
        attemptedOfBad.push(paymentMethod);
        throw new TypeError("lines is not iterable");
      },
    });
    await inbox.handle(records);
    expect(await effectsOf(good)).toEqual(good.map(() => "good"));
    expect(await effectsOf([bad])).toEqual([]);
    // The next events of its key are not even attempted.
    expect(new Set(attemptedOfBad)).toEqual(new Set(["one"]));
    // Three attempts at it alone, and those at single neighbours that the halving leads to.
    expect(batches.filter((size) => size === 1).length).toBeLessThanOrEqual(5);
    expect(batches.length).toBeLessThan(30);
    const [parked, ...others] = await listParked(database, service);
    expect(others).toEqual([]);
    expect(parked).toMatchObject({
      key: bad,
      eventType: "shop.order.v1.OrderPlaced",
      reason: "HANDLER",
      error: "TypeError: lines is not iterable",
      attempts: 3,
      events: 3,
      redeliveryRequestedAt: undefined,
    });
    expect(await stepsOf(bad)).toEqual(["one", "two", "three"]);
  });

  test("a key stays parked for later batches, in every instance, also when its events are delivered again", async () => {
    const [bad = "", good = ""] = neighbours(2);
    const { inbox, metric, batches } = open({ bug: bugFor([bad]) });
    const first = [record(bad, "one"), record(bad, "two")];
    await inbox.handle(first);
    const before = batches.length;
    await inbox.handle([record(bad, "three")]);
    await open().inbox.handle([record(good, "good"), record(bad, "four")]);
    await inbox.handle(first);
    expect(batches.length).toBe(before);
    expect(await effectsOf([bad, good])).toEqual(["good"]);
    expect(await stepsOf(bad)).toEqual(["one", "two", "three", "four"]);
    expect(new Set(await outcomesOf(bad))).toEqual(new Set(["PARKED"]));
    expect(await metric("inbox_parked_events_total", "HANDLER")).toBe(1);
    expect(await metric("inbox_parked_events_total", "BEHIND")).toBe(2);
    expect(await metric("inbox_events_total", "parked")).toBe(3);
  });

  test("a parked key is redelivered only on request, in order, and then handled as usual, with no effect repeated", async () => {
    const bad = newId();
    const records = ["one", "two", "ignored", "four"].map((step) => record(bad, step));
    const { inbox, metric, change } = open({ bug: bugFor([bad]) });
    await inbox.handle(records);

    // Nothing happens without a request, nor on a request for another key.
    change.bug = noBug;
    expect(await requestRedelivery(database, service, { key: "another" })).toBe(0);
    await inbox.redeliverRequested();
    expect(await effectsOf([bad])).toEqual([]);
    expect(await metric("inbox_parked_keys")).toBe(1);

    expect(await requestRedelivery(database, service, { key: bad })).toBe(1);
    expect(await requestRedelivery(database, service, "all")).toBe(0);
    await inbox.redeliverRequested();
    expect(await effectsOf([bad])).toEqual(["one", "two", "ignored", "four"]);
    expect(await outcomesOf(bad)).toEqual(["HANDLED", "HANDLED", "IGNORED", "HANDLED"]);
    expect(await publishedFor(bad)).toBe(4);
    expect(await listParked(database, service)).toEqual([]);
    expect(await showParked(database, service, bad)).toBeUndefined();

    // Neither another redelivery nor another delivery repeats an effect.
    await inbox.redeliverRequested();
    await inbox.handle(records);
    await inbox.handle([record(bad, "five")]);
    expect(await effectsOf([bad])).toEqual(["one", "two", "ignored", "four", "five"]);
    expect(await metric("inbox_redeliveries_total", "handled")).toBe(1);
    expect(await metric("inbox_parked_keys")).toBe(0);
  });

  test("an event that succeeds only at its last attempt is not parked", async () => {
    const [late = "", other = ""] = neighbours(2);
    let attempts = 0;
    const { inbox } = open({
      bug({ orderId }) {
        // It fails in the batch, and twice alone.
        if (orderId === late && ++attempts < 4) throw new TypeError("not yet");
      },
    });
    await inbox.handle([record(late, "one"), record(other, "two")]);
    expect(await effectsOf([late, other])).toEqual(["one", "two"]);
    expect(await listParked(database, service)).toEqual([]);
  });

  test("an event whose data the database refuses is parked as DATA, and succeeds once the column is fixed", async () => {
    const [bad = "", good = ""] = neighbours(2);
    const { inbox } = open();
    await inbox.handle([record(good, "one"), record(bad, "x".repeat(41)), record(good, "two"), record(bad, "three")]);
    expect(await effectsOf([good])).toEqual(["one", "two"]);
    expect(await listParked(database, service)).toMatchObject([{ key: bad, reason: "DATA", events: 2 }]);
    await database.execute("ALTER TABLE effect MODIFY step VARCHAR(80)");
    await requestRedelivery(database, service, "all");
    await inbox.redeliverRequested();
    expect(await effectsOf([bad])).toEqual(["x".repeat(41), "three"]);
  });

  test("an event whose handler publishes an event that does not fit the outbox is parked as APPEND", async () => {
    const [bad = ""] = neighbours(1);
    const { inbox, change } = open();
    change.publishTo = "x".repeat(129);
    await inbox.handle([record(bad, "one")]);
    expect(await listParked(database, service)).toMatchObject([{ key: bad, reason: "APPEND", attempts: 3 }]);
    expect(await effectsOf([bad])).toEqual([]);
  });

  test("a faulty event that several instances receive at once is parked once, and other keys are handled once", async () => {
    const bad = newId();
    const good = neighbours(40);
    const records = [
      ...good.slice(0, 20).map((it) => record(it, "good")),
      record(bad, "one"),
      record(bad, "two"),
      ...good.slice(20).map((it) => record(it, "good")),
    ];
    const bug = bugFor([bad]);
    const instances = [open({ bug }), open({ bug, on: schema.open() }), open({ bug, on: schema.open() })];
    await Promise.all(
      instances.map(async ({ inbox }) => {
        // A lock wait for another instance's transaction is an outage: retry, as the consumer does.
        for (let attempt = 0; ; attempt++) {
          try {
            return await inbox.handle(records);
          } catch (error) {
            if (attempt === 10) throw error;
          }
        }
      }),
    );
    expect((await effectsOf(good)).length).toBe(40);
    expect(await stepsOf(bad)).toEqual(["one", "two"]);
    for (const { change } of instances) change.bug = noBug;
    await requestRedelivery(database, service, "all");
    await Promise.all(instances.map(({ inbox }) => inbox.redeliverRequested()));
    expect(await effectsOf([bad])).toEqual(["one", "two"]);
    expect(await publishedFor(bad)).toBe(2);
  });
});

test("an event is not parked if another instance has handled it in the meantime", async () => {
  const [orderId = ""] = neighbours(1);
  const it = record(orderId, "one");
  let transactions = 0;
  const overtaken: Database = {
    ...database,
    async transaction(work, options) {
      // Three attempts, and then the transaction that parks.
      if (++transactions === 4) await open().inbox.handle([it]);
      return await database.transaction(work, options);
    },
  };
  const { inbox } = open({ bug: bugFor([orderId]), on: overtaken });
  await inbox.handle([it]);
  expect(transactions).toBe(4);
  expect(await effectsOf([orderId])).toEqual(["one"]);
  expect(await outcomesOf(orderId)).toEqual(["HANDLED"]);
  expect(await listParked(database, service)).toEqual([]);
});

test("a parked event that is delivered again after its inbox row is deleted keeps its place", async () => {
  const [bad = ""] = neighbours(1);
  const { inbox } = open({ bug: bugFor([bad]) });
  const [one, two] = [record(bad, "one"), record(bad, "two")];
  await inbox.handle([one, two]);
  await database.execute(`DELETE FROM ${service}_inbox_event WHERE aggregate_id = ?`, [bad]);
  await inbox.handle([one, record(bad, "three")]);
  expect(await stepsOf(bad)).toEqual(["one", "two", "three"]);
});

describe("an outage", () => {
  test("an outage parks nothing, however often the batch is retried, and the batch succeeds afterwards", async () => {
    const orderIds = neighbours(20);
    const { inbox, metric } = open();
    const records = orderIds.map((orderId) => record(orderId, "one"));
    await database.execute("ALTER TABLE effect DROP COLUMN step");
    for (let time = 0; time < 7; time++) await expect(inbox.handle(records)).rejects.toMatchObject({ errno: 1054 });
    expect(await listParked(database, service)).toEqual([]);
    expect(inbox.isStopped()).toBe(false);
    await database.execute("ALTER TABLE effect ADD COLUMN step VARCHAR(80)");
    await inbox.handle(records);
    expect((await effectsOf(orderIds)).length).toBe(20);
    expect(await metric("inbox_events_total", "handled")).toBe(20);
  });

  test("an outage during a redelivery leaves the key unchanged and the redelivery requested", async () => {
    const [bad = ""] = neighbours(1);
    const { inbox, metric, change } = open({ bug: bugFor([bad]) });
    await inbox.handle([record(bad, "one")]);
    change.bug = noBug;
    await requestRedelivery(database, service, { key: bad });
    await database.execute("ALTER TABLE effect DROP COLUMN step");
    await expect(inbox.redeliverRequested()).rejects.toMatchObject({ errno: 1054 });
    const [parked] = await listParked(database, service);
    expect(parked).toMatchObject({ key: bad, attempts: 3, redeliveryRequestedAt: expect.any(Date) });
    await database.execute("ALTER TABLE effect ADD COLUMN step VARCHAR(80)");
    await inbox.redeliverRequested();
    expect(await effectsOf([bad])).toEqual(["one"]);
    expect(await metric("inbox_redeliveries_total", "outage")).toBe(1);
  });
});

describe("the circuit breaker", () => {
  test("five different keys that fail in a row stop the inbox: nothing more is parked, and it resumes by itself once the bug is fixed", async () => {
    const orderIds = neighbours(9);
    const records = orderIds.map((orderId) => record(orderId, "one"));
    const { inbox, metric, change } = open({ bug: bugFor(orderIds) });
    for (let time = 0; time < 3; time++) await expect(inbox.handle(records)).rejects.toThrow("5 keys failed in a row");
    expect((await listParked(database, service)).map(({ key }) => key).sort()).toEqual(orderIds.slice(0, 4).sort());
    expect([inbox.isStopped(), await metric("inbox_stopped")]).toEqual([true, 1]);
    expect(await effectsOf(orderIds)).toEqual([]);

    change.bug = noBug;
    await inbox.handle(records);
    expect([inbox.isStopped(), await metric("inbox_stopped")]).toEqual([false, 0]);
    await requestRedelivery(database, service, "all");
    await inbox.redeliverRequested();
    expect((await effectsOf(orderIds)).length).toBe(9);
    expect(await listParked(database, service)).toEqual([]);
  });

  test("a redelivery that succeeds lets a stopped inbox resume", async () => {
    const orderIds = neighbours(5);
    const { inbox, change } = open({ bug: bugFor(orderIds) });
    await expect(inbox.handle(orderIds.map((orderId) => record(orderId, "one")))).rejects.toThrow();
    expect(inbox.isStopped()).toBe(true);
    change.bug = noBug;
    await requestRedelivery(database, service, { key: orderIds[0] ?? "" });
    await inbox.redeliverRequested();
    expect(inbox.isStopped()).toBe(false);
  });

  test("seven faulty keys in one batch stop the inbox only briefly if others succeed, and no event overtakes another of its key", async () => {
    const bad = neighbours(7);
    const [good = ""] = neighbours(1);
    const records = [...bad.map((it) => record(it, "one")), ...bad.map((it) => record(it, "two")), record(good, "one")];
    const { inbox, change } = open({
      bug({ orderId, paymentMethod }) {
        if (bad.includes(orderId) && paymentMethod === "one") throw new TypeError("lines is not iterable");
      },
    });
    for (let time = 0; ; time++) {
      try {
        await inbox.handle(records);
        break;
      } catch (error) {
        if (time === 5) throw error;
      }
      // Later events of the keys at which it stopped are not attempted either.
      expect(await effectsOf(bad)).toEqual([]);
    }
    expect(await effectsOf([good])).toEqual(["one"]);
    expect((await listParked(database, service)).map(({ events }) => events)).toEqual(bad.map(() => 2));
    change.bug = noBug;
    await requestRedelivery(database, service, "all");
    await inbox.redeliverRequested();
    for (const orderId of bad) expect(await effectsOf([orderId])).toEqual(["one", "two"]);
  });

  test("eight faulty keys with a success after each are parked and do not stop the inbox", async () => {
    const bad = neighbours(8);
    const { inbox } = open({ bug: bugFor(bad) });
    for (const orderId of bad) await inbox.handle([record(orderId, "one"), record(newId(), "one")]);
    expect(inbox.isStopped()).toBe(false);
    expect((await listParked(database, service)).length).toBe(8);
  });
});

describe("redelivery", () => {
  test("a redelivery that fails leaves the key parked with the new error, and earlier events have their effect", async () => {
    const bad = newId();
    const { inbox, metric, change } = open({ bug: bugFor([bad]) });
    await inbox.handle(["one", "two", "three", "four"].map((step) => record(bad, step)));
    change.bug = ({ paymentMethod }) => {
      if (paymentMethod === "three") throw new RangeError("three is too many");
    };
    await requestRedelivery(database, service, { key: bad });
    await inbox.redeliverRequested();
    expect(await effectsOf([bad])).toEqual(["one", "two"]);
    const shown = await showParked(database, service, bad);
    expect(shown?.key).toMatchObject({
      eventId: shown?.events[0]?.eventId,
      error: "RangeError: three is too many",
      attempts: 4,
      events: 2,
      redeliveryRequestedAt: undefined,
    });
    expect(shown?.events.map(({ error }) => error)).toEqual(["RangeError: three is too many", undefined]);
    expect(await outcomesOf(bad)).toEqual(["HANDLED", "HANDLED", "PARKED", "PARKED"]);
    expect(await metric("inbox_redeliveries_total", "failed")).toBe(1);
    // Without another request nothing happens.
    await inbox.redeliverRequested();
    expect(await metric("inbox_redeliveries_total", "failed")).toBe(1);

    change.bug = noBug;
    await requestRedelivery(database, service, { key: bad });
    await inbox.redeliverRequested();
    expect(await effectsOf([bad])).toEqual(["one", "two", "three", "four"]);
    expect(await publishedFor(bad)).toBe(4);
  });

  test("an event whose key ends with a blank has no effect at a redelivery either: to the database, it is another order's key", async () => {
    const order = newId();
    const { inbox, metric, change } = open();
    change.publishTo = order;
    await inbox.handle([record(`${order} `, "one"), record(order, "two")]);
    expect(await effectsOf([order])).toEqual(["two"]);
    const [{ key = "", reason = undefined } = {}] = await listParked(database, service);
    expect(key).toStartWith("raw-");
    expect(reason).toBe("UNDECODABLE");
    await requestRedelivery(database, service, { key });
    await inbox.redeliverRequested();
    expect(await effectsOf([order])).toEqual(["two"]);
    expect(await metric("inbox_redeliveries_total", "failed")).toBe(1);
    expect((await listParked(database, service)).map((it) => it.key)).toEqual([key]);
  });

  test("a redelivery of many events takes several short transactions", async () => {
    const bad = newId();
    const { inbox, batches, change } = open({ bug: bugFor([bad]) });
    const steps = Array.from({ length: 120 }, (_, index) => String(index));
    await inbox.handle(steps.map((step) => record(bad, step)));
    change.bug = noBug;
    batches.length = 0;
    await requestRedelivery(database, service, { key: bad });
    await inbox.redeliverRequested();
    expect(batches).toEqual([50, 50, 20]);
    expect(await effectsOf([bad])).toEqual(steps);
  });

  test("a redelivery and new events of the same key wait for each other", async () => {
    const bad = newId();
    const { inbox, change } = open({ bug: bugFor([bad]) });
    await inbox.handle([record(bad, "one"), record(bad, "two")]);
    change.bug = noBug;
    change.slowMs = 300;
    await requestRedelivery(database, service, { key: bad });
    const redelivery = inbox.redeliverRequested();
    await Bun.sleep(100);
    // In another instance, while the redelivery's transaction is open: it must see the key neither as free nor as parked.
    const arrival = open({ on: schema.open() }).inbox.handle([record(bad, "three")]);
    await Promise.all([redelivery, arrival]);
    expect(await effectsOf([bad])).toEqual(["one", "two", "three"]);
    expect(await listParked(database, service)).toEqual([]);
  });

  test("two instances that redeliver while events arrive and bugs come and go handle each event once, in order", async () => {
    const keys = neighbours(12);
    const broken = new Set<string>();
    const bug: Bug = ({ orderId }) => {
      if (broken.has(orderId)) throw new TypeError("broken");
    };
    const instances = [open({ bug, on: schema.open(6) }), open({ bug, on: schema.open(6) })];
    let arriving = true;
    const redelivering = instances.map(async ({ inbox }) => {
      while (arriving) {
        await requestRedelivery(database, service, "all");
        await inbox.redeliverRequested().catch(() => undefined);
      }
    });
    const steps = Array.from({ length: 15 }, (_, index) => String(index));
    // Each instance has its own partitions, and also gets late deliveries of the other's.
    const delivering = instances.map(async ({ inbox }, instance) => {
      const mine = keys.filter((_, index) => index % 2 === instance);
      let previous: readonly TopicRecord[] = [];
      for (const step of steps) {
        for (const key of keys) if (Math.random() < 0.3) broken.has(key) ? broken.delete(key) : broken.add(key);
        const batch = mine.map((key) => record(key, step));
        const deliver = async (to: typeof inbox, records: readonly TopicRecord[]) => {
          for (;;) {
            try {
              return await to.handle(records);
            } catch {
              broken.clear();
            }
          }
        };
        await Promise.all([deliver(inbox, batch), deliver(instances[1 - instance]?.inbox ?? inbox, previous)]);
        previous = batch;
      }
    });
    await Promise.all(delivering);
    arriving = false;
    await Promise.all(redelivering);
    broken.clear();
    await requestRedelivery(database, service, "all");
    await instances[0]?.inbox.redeliverRequested();
    expect(await listParked(database, service)).toEqual([]);
    for (const key of keys) expect(await effectsOf([key])).toEqual(steps);
    const [left] = await database.query(`SELECT COUNT(*) AS n FROM ${service}_parked_event`);
    expect(Number(left?.n)).toBe(0);
  }, 60_000);
});

describe("an undecodable record", () => {
  const undecodable = (change: Partial<TopicRecord> = {}): TopicRecord => {
    const good = record(newId(), "one");
    return { ...good, value: Buffer.from([0xff, 0x00, 0x80, 0x27, 0x5c]), ...change };
  };

  test("an undecodable record is parked byte for byte with the later events of its key, and its duplicates are dropped", async () => {
    const key = newId();
    const bad = undecodable({ key: Buffer.from(key) });
    const headers: NonNullable<TopicRecord["headers"]> = {
      ...bad.headers,
      binary: Buffer.from([0xff, 0xfe, 0x00]),
      several: [Buffer.from("a"), Buffer.from([0x80])],
      empty: Buffer.from(""),
    };
    const { inbox, metric } = open();
    const good = newId();
    await inbox.handle([record(good, "one"), { ...bad, headers }, record(key, "two"), record(good, "two")]);
    await inbox.handle([{ ...bad, headers }]);
    expect(await effectsOf([good, key])).toEqual(["one", "two"]);
    const shown = await showParked(database, service, key);
    expect(shown?.key).toMatchObject({ reason: "UNDECODABLE", events: 2 });
    expect(shown?.events[0]).toMatchObject({ eventId: String(headers.ce_id), type: "shop.order.v1.OrderPlaced" });
    expect(shown?.events[0]?.record).toEqual({
      ...bad,
      key: Buffer.from(key),
      headers,
    });
    expect(await metric("inbox_events_total", "duplicate")).toBe(1);

    // Redelivery fails while the service still cannot decode it.
    await requestRedelivery(database, service, { key });
    await inbox.redeliverRequested();
    expect((await showParked(database, service, key))?.key).toMatchObject({ attempts: 2, events: 2 });
    expect(await effectsOf([key])).toEqual([]);
  });

  test("an undecodable record without id, key or value, or with parts that do not fit, is parked alone and once", async () => {
    const type = { ce_type: Buffer.from("shop.order.v1.OrderPlaced") };
    const whole = record(newId(), "one");
    const bare = { key: null, value: null, headers: type, partition: 7 };
    const cases = [
      undecodable({ ...bare, offset: "1" }),
      undecodable({ ...bare, offset: "2" }),
      undecodable({ ...bare, offset: "3", publishedAt: new Date(-1) }),
      undecodable({ key: Buffer.from("k".repeat(300)) }),
      { ...whole, headers: { ...whole.headers, ce_id: Buffer.from("i".repeat(37)) } },
      { ...whole, key: Buffer.from(newId()), headers: { ...whole.headers, ce_time: Buffer.from("1960-01-01") } },
      { ...whole, key: Buffer.from("blank "), headers: { ...whole.headers, ce_id: Buffer.from(newId()) } },
    ];
    const { inbox } = open();
    // A good one after each, so that the circuit breaker stays closed.
    for (const it of cases) await inbox.handle([it, record(newId(), "good")]);
    for (const it of cases) await inbox.handle([it]);
    const parked = await listParked(database, service);
    expect(parked.map(({ reason, events }) => `${reason} ${events}`)).toEqual(cases.map(() => "UNDECODABLE 1"));
    const [tombstone] = (await showParked(database, service, parked[0]?.key ?? ""))?.events ?? [];
    expect(tombstone?.record).toMatchObject({ key: null, value: null, headers: type, partition: 7, offset: "1" });
  });

  test("an undecodable record with null headers is parked with them as they were", async () => {
    const key = newId();
    const headers = {
      ce_type: Buffer.from("shop.order.v1.OrderPlaced"),
      ce_id: null,
      several: [null, Buffer.from("a")],
    };
    const { inbox } = open();
    await inbox.handle([undecodable({ key: Buffer.from(key), headers })]);
    expect((await showParked(database, service, key))?.events[0]?.record.headers).toEqual(headers);
  });

  test("a hundred undecodable records in a row are parked at once, stop nothing, and leave the events around them alone", async () => {
    const good = neighbours(50);
    const bad = neighbours(100);
    const { inbox, metric, batches } = open();
    const first = good.map((orderId) => record(orderId, "one"));
    await inbox.handle([
      ...first,
      ...bad.map((key) => record(key, "before")),
      ...bad.map((key) => undecodable({ key: Buffer.from(key) })),
      ...bad.map((key) => record(key, "behind")),
      ...good.map((orderId) => record(orderId, "two")),
    ]);
    expect(batches).toEqual([200]);
    expect((await effectsOf(good)).length).toBe(100);
    expect(await effectsOf(bad)).toEqual(bad.map(() => "before"));
    expect((await listParked(database, service)).map(({ reason, events }) => `${reason} ${events}`)).toEqual(
      bad.map(() => "UNDECODABLE 2"),
    );
    expect(inbox.isStopped()).toBe(false);
    expect(await metric("inbox_parked_events_total", "UNDECODABLE")).toBe(100);
    expect(await metric("inbox_parked_events_total", "BEHIND")).toBe(100);
    // Nothing but such records in a batch stops nothing either.
    await inbox.handle(neighbours(20).map((key) => undecodable({ key: Buffer.from(key) })));
    expect(inbox.isStopped()).toBe(false);
  });

  test("an event that belongs to another key than its record is parked under the record's key, and a redelivery does not handle it", async () => {
    const [orderId = "", key = ""] = neighbours(2);
    const { inbox } = open();
    await inbox.handle([{ ...record(orderId, "one"), key: Buffer.from(key) }, record(orderId, "two")]);
    expect(await effectsOf([orderId, key])).toEqual(["two"]);
    expect(await listParked(database, service)).toMatchObject([{ key, reason: "UNDECODABLE", events: 1 }]);
    await requestRedelivery(database, service, { key });
    await inbox.redeliverRequested();
    expect(await effectsOf([orderId, key])).toEqual(["two"]);
    expect(await listParked(database, service)).toMatchObject([{ key, attempts: 2 }]);
  });

  test("an undecodable record of a type that is not handled here is skipped", async () => {
    const { inbox, metric } = open();
    await inbox.handle([undecodable({ headers: { ce_type: Buffer.from("shop.shipping.v1.ParcelSent") } })]);
    expect(await listParked(database, service)).toEqual([]);
    expect(await metric("inbox_events_total", "skipped")).toBe(1);
  });

  test("many undecodable records of a megabyte each are parked", async () => {
    const key = newId();
    const value = Buffer.alloc(1_000_000, 0xff);
    const { inbox } = open();
    await inbox.handle([undecodable({ key: Buffer.from(key), value })]);
    const before = (await readCounters("Com_insert")).get("Com_insert") ?? 0;
    await inbox.handle(Array.from({ length: 10 }, () => undecodable({ key: Buffer.from(key), value })));
    // One insert for the inbox, and one per parked record, since the server limits the size of a statement.
    expect(((await readCounters("Com_insert")).get("Com_insert") ?? 0) - before).toBe(11);
    const shown = await showParked(database, service, key);
    expect(shown?.events.length).toBe(11);
    expect(shown?.events.every(({ record: { value: kept } }) => kept !== null && value.equals(kept))).toBe(true);
  });
});

test("a batch without faults takes the same number of statements for 1 record and for 200, one of them for parked keys", async () => {
  const { inbox } = open();
  const statements = async (count: number) => {
    const records = neighbours(count).map((orderId) => record(orderId, "one"));
    const before = await readCounters("Com_%");
    await inbox.handle(records);
    const after = await readCounters("Com_%");
    const ofInterest = /^Com_(begin|select|insert|update|update_multi|delete|commit|rollback|savepoint)$/;
    return [...after].flatMap(([name, value]) => {
      const count = value - (before.get(name) ?? 0);
      return ofInterest.test(name) && count > 0 ? [`${name} ${count}`] : [];
    });
  };
  const one = await statements(1);
  // Inserts into the inbox, the handler's table and the outbox; the parked keys are read.
  expect(one).toEqual(["Com_begin 1", "Com_commit 1", "Com_insert 3", "Com_select 1"]);
  expect(await statements(200)).toEqual(one);
});

describe("on a broker", () => {
  const produce = async (topic: string, records: readonly TopicRecord[]) => {
    const producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
    await producer.send(
      topic,
      records.map(
        ({ key, value, headers }): EventRecord => ({
          key: Buffer.from(key ?? []).toString(),
          value: value ?? new Uint8Array(),
          headers: Object.fromEntries(Object.entries(headers ?? {}).map(([name, it]) => [name, String(it)])),
        }),
      ),
    );
    await producer.close();
  };
  const consume = async (topic: string, group: string, bug: Bug) => {
    const opened = open({ bug });
    const consumer = await startConsumer({
      service: group,
      topic,
      kafka: testKafka(),
      inbox: opened.inbox,
      log: silentLogger,
      metrics: opened.metrics,
      onCrash(error) {
        throw error;
      },
    });
    return { ...opened, close: consumer.close };
  };

  test("a faulty event delays neither its partition nor other keys, and the consumer redelivers it on request", async () => {
    const topic = await createTestTopic(1);
    const group = newId();
    const bad = newId();
    const good = neighbours(50);
    const first = await consume(topic, group, bugFor([bad]));
    await produce(topic, [record(bad, "one"), ...good.map((it) => record(it, "good")), record(bad, "two")]);
    await eventually(async () => expect((await listParked(database, service))[0]?.events).toBe(2), 20_000);
    expect((await effectsOf(good)).length).toBe(50);
    await eventually(async () => expect(await first.metric("inbox_lag_records")).toBe(0));
    await first.close();

    // A new process without the bug, which knows only the tables.
    const second = await consume(topic, group, noBug);
    await produce(topic, [record(bad, "three")]);
    await eventually(async () => expect((await listParked(database, service))[0]?.events).toBe(3), 20_000);
    expect(await effectsOf([bad])).toEqual([]);
    await requestRedelivery(database, service, { key: bad });
    await eventually(async () => expect(await effectsOf([bad])).toEqual(["one", "two", "three"]), 5_000);
    await second.close();
  });

  test("a consumer with a stopped inbox keeps its offset, shows its lag, closes in time and recovers", async () => {
    const topic = await createTestTopic(1);
    const group = newId();
    const orderIds = neighbours(30);
    const first = await consume(topic, group, bugFor(orderIds));
    await produce(
      topic,
      orderIds.map((it) => record(it, "one")),
    );
    await eventually(() => expect(first.inbox.isStopped()).toBe(true), 20_000);
    expect(await first.metric("inbox_lag_records")).toBeGreaterThanOrEqual(26);
    expect((await listParked(database, service)).length).toBe(4);
    const startedMs = performance.now();
    await first.close();
    expect(performance.now() - startedMs).toBeLessThan(5_000);

    const second = await consume(topic, group, noBug);
    await eventually(async () => expect((await effectsOf(orderIds)).length).toBe(26), 20_000);
    await requestRedelivery(database, service, "all");
    await eventually(async () => expect((await effectsOf(orderIds)).length).toBe(30), 5_000);
    expect(second.inbox.isStopped()).toBe(false);
    expect(await second.metric("inbox_lag_records")).toBe(0);
    await second.close();
  });
});
