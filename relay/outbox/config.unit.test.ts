import { describe, expect, test } from "bun:test";
import { archiveRetentionHours, readConfig } from "../../services/kit/config.ts";
import { readRelayConfig } from "./config.ts";

const order = {
  name: "order",
  databaseUrl: "mysql://shop_relay:secret@127.0.0.1:3406/shop_order",
  outboxTable: "order_outbox_event",
  topic: "shop.order-saga",
};
const read = (sources: unknown) => readRelayConfig({ RELAY_SOURCES: JSON.stringify(sources) });

test("a source entry with only the required fields gets the defaults for all others", () => {
  expect(read([order]).sources).toEqual([
    {
      ...order,
      schema: "shop_order",
      archiveTable: "order_outbox_event_archive",
      deadLetterTopic: "shop.order-saga.dlq",
      encoding: "protobuf",
      ceSource: "/shop/order",
    },
  ]);
});

test("a source entry can set every field", () => {
  const entry = {
    ...order,
    archiveTable: "old_event",
    deadLetterTopic: "dead",
    encoding: "json",
    ceSource: "urn:billing",
  } as const;
  expect(read([entry]).sources).toEqual([{ ...entry, schema: "shop_order" }]);
});

test("every setting but RELAY_SOURCES has a default", () => {
  expect(read([order])).toMatchObject({
    instance: "relay",
    healthPort: 9467,
    hintPort: 9470,
    descriptorSetPath: "proto/gen/descriptors.binpb",
    attemptsMax: 10,
    retryBaseMs: 1_000,
    archiveAfterMs: 86_400_000,
    archivePruneAfterMs: 1_209_600_000,
    kafkaBrokers: [{ host: "127.0.0.1", port: 19_092 }],
  });
});

test("by default, a service's archive retention equals the time for which the relay keeps events", () => {
  const { archiveAfterMs, archivePruneAfterMs } = read([order]);
  const hours = readConfig({}, { archiveRetentionHours }).archiveRetentionHours;
  expect(hours * 3_600_000).toBe(archiveAfterMs + archivePruneAfterMs);
});

describe("the error of a faulty RELAY_SOURCES names the entry and the field", () => {
  const second = { ...order, name: "payment", outboxTable: "payment_outbox_event" };
  const cases: readonly (readonly [string, unknown, string])[] = [
    ["no array", {}, "RELAY_SOURCES must be a JSON array of 1 to 100 sources"],
    ["an empty array", [], "RELAY_SOURCES must be a JSON array of 1 to 100 sources"],
    ["an entry that is not an object", [order, "payment"], "entry 2: must be a JSON object"],
    ["a missing field", [order, { ...second, topic: undefined }], "entry 2: topic is missing"],
    ["a misspelt field", [{ ...order, ouboxTable: "x" }], "entry 1: unknown field ouboxTable"],
    [
      "a table name with a dot",
      [{ ...order, outboxTable: "shop.event" }],
      'entry 1: outboxTable must match /^[a-z0-9_]{1,64}$/, but is "shop.event"',
    ],
    ["SQL in a table name", [{ ...order, archiveTable: "a; DROP TABLE b" }], "entry 1: archiveTable must match"],
    ["an unknown encoding", [{ ...order, encoding: "avro" }], "entry 1: encoding must match"],
    [
      "a dead-letter topic that is the topic",
      [{ ...order, deadLetterTopic: order.topic }],
      "entry 1: deadLetterTopic must not be the topic itself, shop.order-saga",
    ],
    ["a number for a name", [{ ...order, name: 7 }], "entry 1: name must match"],
    ["a URL without a schema", [{ ...order, databaseUrl: "mysql://u:p@h:3306" }], "entry 1: databaseUrl must be a URL"],
    ["two sources with one name", [order, { ...second, name: "order" }], "entry 2: entry 1 has the same name order"],
    [
      "two sources with one table",
      [order, { ...order, name: "other" }],
      "entry 2: entry 1 has the same table order_outbox_event",
    ],
  ];
  for (const [what, sources, message] of cases) {
    test(`RELAY_SOURCES with ${what} is refused, with an error that says where`, () => {
      expect(() => read(sources)).toThrow(message);
    });
  }

  test("the error of a faulty databaseUrl does not contain its password", () => {
    let message = "";
    try {
      read([{ ...order, databaseUrl: "postgres://u:secret@h/s" }]);
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain("entry 1: databaseUrl");
    expect(message).not.toContain("secret");
  });
});
