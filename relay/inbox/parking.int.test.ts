/** Parking on a real database, and where the broker matters on a real broker, with a handler of the test's own. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
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
import { createInbox, startConsumer } from "./consumer.ts";
import type { ReceivedEvent } from "./handler.ts";
import { listParked, requestReplay, showParked } from "./parking.ts";

// Any service's tables would do: the handler writes its effect into a table of its own.
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

/** An event of an order; `step` is what its effect leaves behind. */
function record(orderId: string, step: string): TopicRecord {
  const message = create(OrderPlacedSchema, { orderId, paymentMethod: step });
  const event = { id: newId(), aggregateId: orderId, message, headers: {} };
  return asTopicRecord(event, { source: "/shop/order", offset: offset++ });
}

type Fault = (event: OrderPlaced) => void;
const none: Fault = () => undefined;

/** An inbox whose effect is a row and an event to publish for each event. `fault` may throw, or be changed. */
function open(options: { readonly fault?: Fault; readonly on?: Database } = {}) {
  const metrics = new Metrics();
  const batches: number[] = [];
  const change: { fault: Fault; slowMs: number; publishTo: string | undefined } = {
    fault: options.fault ?? none,
    slowMs: 0,
    publishTo: undefined,
  };
  const inbox = createInbox<OrderPlaced>({
    service,
    database: options.on ?? database,
    registry: eventRegistry,
    handles: new Set(["shop.order.v1.OrderPlaced"]),
    records: "handled",
    async handle(_, events: readonly ReceivedEvent<OrderPlaced>[]) {
      batches.push(events.length);
      for (const { message } of events) change.fault(message);
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

const bug = (orderIds: readonly string[]): Fault => {
  const bad = new Set(orderIds);
  return ({ orderId }) => {
    if (bad.has(orderId)) throw new TypeError("lines is not iterable");
  };
};
const neighbours = (count: number) => Array.from({ length: count }, () => newId());
const stepsOf = async (key: string) => (await showParked(database, service, key))?.events.map(stepIn) ?? [];
const stepIn = ({ record: { value } }: { readonly record: TopicRecord }) =>
  /one|two|three|four|five/.exec(Buffer.from(value ?? []).toString("latin1"))?.[0];

describe("an event that cannot be handled", () => {
  test("in a batch of 200 is parked with its key; neighbours have their effect; the replay does the rest, in order, once", async () => {
    const bad = newId();
    const good = neighbours(197);
    const records = good.map((orderId) => record(orderId, "good"));
    records.splice(60, 0, record(bad, "one"));
    records.splice(61, 0, record(bad, "two"));
    records.splice(150, 0, record(bad, "ignored"));
    const { inbox, metric, batches, change } = open({ fault: bug([bad]) });
    await inbox(records);
    expect(await effectsOf(good)).toEqual(good.map(() => "good"));
    expect(await effectsOf([bad])).toEqual([]);
    // Three tries alone, and its key's next event is not tried at all.
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
      replayRequestedAt: undefined,
    });

    // Later batches find it parked, in this instance and in any other.
    const before = batches.length;
    await inbox([record(bad, "four")]);
    const another = open();
    const [neighbour = ""] = neighbours(1);
    await another.inbox([record(neighbour, "good"), record(bad, "five")]);
    expect(batches.length).toBe(before);
    expect(await effectsOf([bad, neighbour])).toEqual(["good"]);
    expect(await stepsOf(bad)).toEqual(["one", "two", undefined, "four", "five"]);
    expect(new Set(await outcomesOf(bad))).toEqual(new Set(["PARKED"]));
    // Delivered again they stay what they are.
    await inbox(records);
    expect((await listParked(database, service))[0]?.events).toBe(5);

    // Nothing happens unasked, nor for another key.
    change.fault = none;
    expect(await requestReplay(database, service, { key: "nobody" })).toBe(0);
    await inbox.replayRequested();
    expect(await effectsOf([bad])).toEqual([]);
    expect(await metric("inbox_parked_keys")).toBe(1);

    expect(await requestReplay(database, service, { key: bad })).toBe(1);
    expect(await requestReplay(database, service, "all")).toBe(0);
    await inbox.replayRequested();
    expect(await effectsOf([bad])).toEqual(["one", "two", "ignored", "four", "five"]);
    expect(await outcomesOf(bad)).toEqual(["HANDLED", "HANDLED", "IGNORED", "HANDLED", "HANDLED"]);
    expect(await publishedFor(bad)).toBe(5);
    expect(await listParked(database, service)).toEqual([]);
    expect(await showParked(database, service, bad)).toBeUndefined();

    // Once is once: no replay and no delivery does it again, and the key is as free as any.
    await inbox.replayRequested();
    await inbox(records);
    await inbox([record(bad, "six")]);
    expect(await effectsOf([bad])).toEqual(["one", "two", "ignored", "four", "five", "six"]);
    expect(await metric("inbox_parked_events_total", "HANDLER")).toBe(1);
    expect(await metric("inbox_parked_events_total", "BEHIND")).toBe(3);
    expect(await metric("inbox_replays_total", "handled")).toBe(1);
    expect(await metric("inbox_events_total", "parked")).toBe(4);
    expect(await metric("inbox_parked_keys")).toBe(0);
  });

  test("that succeeds at its second or third try is not parked", async () => {
    const [late = "", other = ""] = neighbours(2);
    let tries = 0;
    const { inbox } = open({
      fault({ orderId }) {
        if (orderId === late && ++tries < 4) throw new TypeError("not yet");
      },
    });
    await inbox([record(late, "one"), record(other, "two")]);
    expect(await effectsOf([late, other])).toEqual(["one", "two"]);
    expect(await listParked(database, service)).toEqual([]);
  });

  test("since the database refuses its data is parked as such, and goes once the column is mended", async () => {
    const [bad = "", good = ""] = neighbours(2);
    const { inbox } = open();
    await inbox([record(good, "one"), record(bad, "x".repeat(41)), record(good, "two"), record(bad, "three")]);
    expect(await effectsOf([good])).toEqual(["one", "two"]);
    expect(await listParked(database, service)).toMatchObject([{ key: bad, reason: "DATA", events: 2 }]);
    await database.execute("ALTER TABLE effect MODIFY step VARCHAR(80)");
    await requestReplay(database, service, "all");
    await inbox.replayRequested();
    expect(await effectsOf([bad])).toEqual(["x".repeat(41), "three"]);
  });

  test("since its answer would not fit the outbox is parked as such", async () => {
    const [bad = ""] = neighbours(1);
    const { inbox, change } = open();
    change.publishTo = "x".repeat(129);
    await inbox([record(bad, "one")]);
    expect(await listParked(database, service)).toMatchObject([{ key: bad, reason: "APPEND", attempts: 3 }]);
    expect(await effectsOf([bad])).toEqual([]);
  });

  test("and the same record at several instances at once is parked once, its neighbours handled once", async () => {
    const bad = newId();
    const good = neighbours(40);
    const records = [
      ...good.slice(0, 20).map((it) => record(it, "good")),
      record(bad, "one"),
      record(bad, "two"),
      ...good.slice(20).map((it) => record(it, "good")),
    ];
    const fault = bug([bad]);
    const instances = [open({ fault }), open({ fault, on: schema.open() }), open({ fault, on: schema.open() })];
    await Promise.all(
      instances.map(async ({ inbox }) => {
        // What another instance's transaction takes too long for is an outage, and tried again, as the consumer does.
        for (let tries = 0; ; tries++) {
          try {
            return await inbox(records);
          } catch (error) {
            if (tries === 10) throw error;
          }
        }
      }),
    );
    expect((await effectsOf(good)).length).toBe(40);
    expect(await stepsOf(bad)).toEqual(["one", "two"]);
    for (const { change } of instances) change.fault = none;
    await requestReplay(database, service, "all");
    await Promise.all(instances.map(({ inbox }) => inbox.replayRequested()));
    expect(await effectsOf([bad])).toEqual(["one", "two"]);
    expect(await publishedFor(bad)).toBe(2);
  });
});

test("an event that another instance has handled by the time that it would be parked is not parked", async () => {
  const [orderId = ""] = neighbours(1);
  const it = record(orderId, "one");
  let transactions = 0;
  const overtaken: Database = {
    ...database,
    async transaction(work, options) {
      // Three tries, and then the one that parks.
      if (++transactions === 4) await open().inbox([it]);
      return await database.transaction(work, options);
    },
  };
  const { inbox } = open({ fault: bug([orderId]), on: overtaken });
  await inbox([it]);
  expect(transactions).toBe(4);
  expect(await effectsOf([orderId])).toEqual(["one"]);
  expect(await outcomesOf(orderId)).toEqual(["HANDLED"]);
  expect(await listParked(database, service)).toEqual([]);
});

test("an event that comes again after its inbox row is gone is parked once still, in its place", async () => {
  const [bad = ""] = neighbours(1);
  const { inbox } = open({ fault: bug([bad]) });
  const [one, two] = [record(bad, "one"), record(bad, "two")];
  await inbox([one, two]);
  await database.execute(`DELETE FROM ${service}_inbox_event WHERE aggregate_id = ?`, [bad]);
  await inbox([one, record(bad, "three")]);
  expect(await stepsOf(bad)).toEqual(["one", "two", "three"]);
});

describe("an outage", () => {
  test("parks nothing, however often it is tried, and passes when it is mended", async () => {
    const orderIds = neighbours(20);
    const { inbox, metric } = open();
    const records = orderIds.map((orderId) => record(orderId, "one"));
    await database.execute("ALTER TABLE effect DROP COLUMN step");
    for (let time = 0; time < 7; time++) await expect(inbox(records)).rejects.toMatchObject({ errno: 1054 });
    expect(await listParked(database, service)).toEqual([]);
    expect(inbox.isStopped()).toBe(false);
    await database.execute("ALTER TABLE effect ADD COLUMN step VARCHAR(80)");
    await inbox(records);
    expect((await effectsOf(orderIds)).length).toBe(20);
    expect(await metric("inbox_events_total", "handled")).toBe(20);
  });

  test("during a replay leaves the key as it is, and the replay requested", async () => {
    const [bad = ""] = neighbours(1);
    const { inbox, metric, change } = open({ fault: bug([bad]) });
    await inbox([record(bad, "one")]);
    change.fault = none;
    await requestReplay(database, service, { key: bad });
    await database.execute("ALTER TABLE effect DROP COLUMN step");
    await expect(inbox.replayRequested()).rejects.toMatchObject({ errno: 1054 });
    const [parked] = await listParked(database, service);
    expect(parked).toMatchObject({ key: bad, attempts: 3, replayRequestedAt: expect.any(Date) });
    await database.execute("ALTER TABLE effect ADD COLUMN step VARCHAR(80)");
    await inbox.replayRequested();
    expect(await effectsOf([bad])).toEqual(["one"]);
    expect(await metric("inbox_replays_total", "outage")).toBe(1);
  });
});

describe("five different keys in a row", () => {
  test("stop the consumer: nothing more is parked, and it goes on by itself when the fault is mended", async () => {
    const orderIds = neighbours(9);
    const records = orderIds.map((orderId) => record(orderId, "one"));
    const { inbox, metric, change } = open({ fault: bug(orderIds) });
    for (let time = 0; time < 3; time++) await expect(inbox(records)).rejects.toThrow("5 keys failed in a row");
    expect((await listParked(database, service)).map(({ key }) => key).sort()).toEqual(orderIds.slice(0, 4).sort());
    expect([inbox.isStopped(), await metric("inbox_stopped")]).toEqual([true, 1]);
    expect(await effectsOf(orderIds)).toEqual([]);

    change.fault = none;
    await inbox(records);
    expect([inbox.isStopped(), await metric("inbox_stopped")]).toEqual([false, 0]);
    await requestReplay(database, service, "all");
    await inbox.replayRequested();
    expect((await effectsOf(orderIds)).length).toBe(9);
    expect(await listParked(database, service)).toEqual([]);
  });

  test("that a replay shows to be mended start it again", async () => {
    const orderIds = neighbours(5);
    const { inbox, change } = open({ fault: bug(orderIds) });
    await expect(inbox(orderIds.map((orderId) => record(orderId, "one")))).rejects.toThrow();
    expect(inbox.isStopped()).toBe(true);
    change.fault = none;
    await requestReplay(database, service, { key: orderIds[0] ?? "" });
    await inbox.replayRequested();
    expect(inbox.isStopped()).toBe(false);
  });

  test("side by side do not stop it for long where others fare better; no event overtakes its key's", async () => {
    const bad = neighbours(7);
    const [good = ""] = neighbours(1);
    const records = [...bad.map((it) => record(it, "one")), ...bad.map((it) => record(it, "two")), record(good, "one")];
    const { inbox, change } = open({
      fault({ orderId, paymentMethod }) {
        if (bad.includes(orderId) && paymentMethod === "one") throw new TypeError("lines is not iterable");
      },
    });
    for (let time = 0; ; time++) {
      try {
        await inbox(records);
        break;
      } catch (error) {
        if (time === 5) throw error;
      }
      // Where it stopped, a later event of the key is not tried either.
      expect(await effectsOf(bad)).toEqual([]);
    }
    expect(await effectsOf([good])).toEqual(["one"]);
    expect((await listParked(database, service)).map(({ events }) => events)).toEqual(bad.map(() => 2));
    change.fault = none;
    await requestReplay(database, service, "all");
    await inbox.replayRequested();
    for (const orderId of bad) expect(await effectsOf([orderId])).toEqual(["one", "two"]);
  });

  test("with a success between them are just five bad keys", async () => {
    const bad = neighbours(8);
    const { inbox } = open({ fault: bug(bad) });
    for (const orderId of bad) await inbox([record(orderId, "one"), record(newId(), "one")]);
    expect(inbox.isStopped()).toBe(false);
    expect((await listParked(database, service)).length).toBe(8);
  });
});

describe("a replay", () => {
  test("that fails again leaves the key parked with its new error, and what came before it has its effect", async () => {
    const bad = newId();
    const { inbox, metric, change } = open({ fault: bug([bad]) });
    await inbox(["one", "two", "three", "four"].map((step) => record(bad, step)));
    change.fault = ({ paymentMethod }) => {
      if (paymentMethod === "three") throw new RangeError("three is too many");
    };
    await requestReplay(database, service, { key: bad });
    await inbox.replayRequested();
    expect(await effectsOf([bad])).toEqual(["one", "two"]);
    const shown = await showParked(database, service, bad);
    expect(shown?.key).toMatchObject({
      eventId: shown?.events[0]?.eventId,
      error: "RangeError: three is too many",
      attempts: 4,
      events: 2,
      replayRequestedAt: undefined,
    });
    expect(shown?.events.map(({ error }) => error)).toEqual(["RangeError: three is too many", undefined]);
    expect(await outcomesOf(bad)).toEqual(["HANDLED", "HANDLED", "PARKED", "PARKED"]);
    expect(await metric("inbox_replays_total", "failed")).toBe(1);
    // Nobody asks again: nothing happens.
    await inbox.replayRequested();
    expect(await metric("inbox_replays_total", "failed")).toBe(1);

    change.fault = none;
    await requestReplay(database, service, { key: bad });
    await inbox.replayRequested();
    expect(await effectsOf([bad])).toEqual(["one", "two", "three", "four"]);
    expect(await publishedFor(bad)).toBe(4);
  });

  test("of a long pile goes in several transactions, each short", async () => {
    const bad = newId();
    const { inbox, batches, change } = open({ fault: bug([bad]) });
    const steps = Array.from({ length: 120 }, (_, index) => String(index));
    await inbox(steps.map((step) => record(bad, step)));
    change.fault = none;
    batches.length = 0;
    await requestReplay(database, service, { key: bad });
    await inbox.replayRequested();
    expect(batches).toEqual([50, 50, 20]);
    expect(await effectsOf([bad])).toEqual(steps);
  });

  test("and new events of the same key wait for each other", async () => {
    const bad = newId();
    const { inbox, change } = open({ fault: bug([bad]) });
    await inbox([record(bad, "one"), record(bad, "two")]);
    change.fault = none;
    change.slowMs = 300;
    await requestReplay(database, service, { key: bad });
    const replay = inbox.replayRequested();
    await Bun.sleep(100);
    // By another instance, while the replay's transaction is open: it must not see the key as free, nor as parked.
    const arrival = open({ on: schema.open() }).inbox([record(bad, "three")]);
    await Promise.all([replay, arrival]);
    expect(await effectsOf([bad])).toEqual(["one", "two", "three"]);
    expect(await listParked(database, service)).toEqual([]);
  });

  test("by two instances at once, under arriving events and faults that come and go: in order, once", async () => {
    const keys = neighbours(12);
    const broken = new Set<string>();
    const fault: Fault = ({ orderId }) => {
      if (broken.has(orderId)) throw new TypeError("broken");
    };
    const instances = [open({ fault, on: schema.open(6) }), open({ fault, on: schema.open(6) })];
    let arriving = true;
    const replaying = instances.map(async ({ inbox }) => {
      while (arriving) {
        await requestReplay(database, service, "all");
        await inbox.replayRequested().catch(() => undefined);
      }
    });
    const steps = Array.from({ length: 15 }, (_, index) => String(index));
    // Each instance has partitions of its own, and the first one also gets late deliveries of the other's.
    const delivering = instances.map(async ({ inbox }, instance) => {
      const mine = keys.filter((_, index) => index % 2 === instance);
      let previous: readonly TopicRecord[] = [];
      for (const step of steps) {
        for (const key of keys) if (Math.random() < 0.3) broken.has(key) ? broken.delete(key) : broken.add(key);
        const batch = mine.map((key) => record(key, step));
        const deliver = async (to: typeof inbox, records: readonly TopicRecord[]) => {
          for (;;) {
            try {
              return await to(records);
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
    await Promise.all(replaying);
    broken.clear();
    await requestReplay(database, service, "all");
    await instances[0]?.inbox.replayRequested();
    expect(await listParked(database, service)).toEqual([]);
    for (const key of keys) expect(await effectsOf([key])).toEqual(steps);
    const [left] = await database.query(`SELECT COUNT(*) AS n FROM ${service}_parked_event`);
    expect(Number(left?.n)).toBe(0);
  }, 60_000);
});

describe("a record that does not decode", () => {
  const undecodable = (change: Partial<TopicRecord> = {}): TopicRecord => {
    const good = record(newId(), "one");
    return { ...good, value: Buffer.from([0xff, 0x00, 0x80, 0x27, 0x5c]), ...change };
  };

  test("is kept byte for byte, with the later events of its key, and is dropped as a duplicate", async () => {
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
    await inbox([record(good, "one"), { ...bad, headers }, record(key, "two"), record(good, "two")]);
    await inbox([{ ...bad, headers }]);
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

    // The replay of a service that still cannot read it fails.
    await requestReplay(database, service, { key });
    await inbox.replayRequested();
    expect((await showParked(database, service, key))?.key).toMatchObject({ attempts: 4, events: 2 });
    expect(await effectsOf([key])).toEqual([]);
  });

  test("and has neither id, key nor value, or parts that do not fit, is parked by itself: no loss, no loop", async () => {
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
    // A good one between them: they are not in a row.
    for (const it of cases) await inbox([it, record(newId(), "good")]);
    for (const it of cases) await inbox([it]);
    const parked = await listParked(database, service);
    expect(parked.map(({ reason, events }) => `${reason} ${events}`)).toEqual(cases.map(() => "UNDECODABLE 1"));
    const [tombstone] = (await showParked(database, service, parked[0]?.key ?? ""))?.events ?? [];
    expect(tombstone?.record).toMatchObject({ key: null, value: null, headers: type, partition: 7, offset: "1" });
  });

  test("of a type that nobody handles here is none of ours", async () => {
    const { inbox, metric } = open();
    await inbox([undecodable({ headers: { ce_type: Buffer.from("shop.shipping.v1.ParcelSent") } })]);
    expect(await listParked(database, service)).toEqual([]);
    expect(await metric("inbox_events_total", "skipped")).toBe(1);
  });

  test("of a megabyte is kept too, and many of them", async () => {
    const key = newId();
    const value = Buffer.alloc(1_000_000, 0xff);
    const { inbox } = open();
    await inbox([undecodable({ key: Buffer.from(key), value })]);
    const before = (await readCounters("Com_insert")).get("Com_insert") ?? 0;
    await inbox(Array.from({ length: 10 }, () => undecodable({ key: Buffer.from(key), value })));
    // One for the inbox; the records in statements that a server accepts.
    expect(((await readCounters("Com_insert")).get("Com_insert") ?? 0) - before).toBe(11);
    const shown = await showParked(database, service, key);
    expect(shown?.events.length).toBe(11);
    expect(shown?.events.every(({ record: { value: kept } }) => kept !== null && value.equals(kept))).toBe(true);
  });
});

test("a good batch takes the same number of statements for 1 record and for 200, one of them for parked keys", async () => {
  const { inbox } = open();
  const statements = async (count: number) => {
    const records = neighbours(count).map((orderId) => record(orderId, "one"));
    const before = await readCounters("Com_%");
    await inbox(records);
    const after = await readCounters("Com_%");
    const ofInterest = /^Com_(begin|select|insert|update|update_multi|delete|commit|rollback|savepoint)$/;
    return [...after].flatMap(([name, value]) => {
      const count = value - (before.get(name) ?? 0);
      return ofInterest.test(name) && count > 0 ? [`${name} ${count}`] : [];
    });
  };
  const one = await statements(1);
  // Inbox, handler and outbox insert; the parked keys are read.
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
  const consume = async (topic: string, group: string, fault: Fault) => {
    const opened = open({ fault });
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

  test("a bad event stops neither its partition nor its neighbours; the service carries out a replay by itself", async () => {
    const topic = await createTestTopic(1);
    const group = newId();
    const bad = newId();
    const good = neighbours(50);
    const first = await consume(topic, group, bug([bad]));
    await produce(topic, [record(bad, "one"), ...good.map((it) => record(it, "good")), record(bad, "two")]);
    await eventually(async () => expect((await listParked(database, service))[0]?.events).toBe(2), 20_000);
    expect((await effectsOf(good)).length).toBe(50);
    await eventually(async () => expect(await first.metric("inbox_lag_records")).toBe(0));
    await first.close();

    // A new process, which knows of nothing but the tables, and can handle it.
    const second = await consume(topic, group, none);
    await produce(topic, [record(bad, "three")]);
    await eventually(async () => expect((await listParked(database, service))[0]?.events).toBe(3), 20_000);
    expect(await effectsOf([bad])).toEqual([]);
    await requestReplay(database, service, { key: bad });
    await eventually(async () => expect(await effectsOf([bad])).toEqual(["one", "two", "three"]), 5_000);
    await second.close();
  });

  test("a consumer that is stopped keeps its place, shows its lag, closes in time, and recovers", async () => {
    const topic = await createTestTopic(1);
    const group = newId();
    const orderIds = neighbours(30);
    const first = await consume(topic, group, bug(orderIds));
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

    const second = await consume(topic, group, none);
    await eventually(async () => expect((await effectsOf(orderIds)).length).toBe(26), 20_000);
    await requestReplay(database, service, "all");
    await eventually(async () => expect((await effectsOf(orderIds)).length).toBe(30), 5_000);
    expect(second.inbox.isStopped()).toBe(false);
    expect(await second.metric("inbox_lag_records")).toBe(0);
    await second.close();
  });
});
