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

test("a source takes its defaults", () => {
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

test("a source can set everything", () => {
  const entry = {
    ...order,
    archiveTable: "old_event",
    deadLetterTopic: "dead",
    encoding: "json",
    ceSource: "urn:billing",
  } as const;
  expect(read([entry]).sources).toEqual([{ ...entry, schema: "shop_order" }]);
});

test("the rest has defaults", () => {
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

test("by default, services remember what the relay keeps for as long as it keeps it", () => {
  const { archiveAfterMs, archivePruneAfterMs } = read([order]);
  const hours = readConfig({}, { archiveRetentionHours }).archiveRetentionHours;
  expect(hours * 3_600_000).toBe(archiveAfterMs + archivePruneAfterMs);
});

describe("an error names the entry and the field", () => {
  const second = { ...order, name: "payment", outboxTable: "payment_outbox_event" };
  const cases: readonly (readonly [string, unknown, string])[] = [
    ["not an array", {}, "RELAY_SOURCES must be a JSON array of 1 to 100 sources"],
    ["empty", [], "RELAY_SOURCES must be a JSON array of 1 to 100 sources"],
    ["no object", [order, "payment"], "entry 2: must be a JSON object"],
    ["missing", [order, { ...second, topic: undefined }], "entry 2: topic is missing"],
    ["misspelt", [{ ...order, ouboxTable: "x" }], "entry 1: has no field ouboxTable"],
    [
      "a table with a dot",
      [{ ...order, outboxTable: "shop.event" }],
      'entry 1: outboxTable must match /^[a-z0-9_]{1,64}$/, but is "shop.event"',
    ],
    ["an injection", [{ ...order, archiveTable: "a; DROP TABLE b" }], "entry 1: archiveTable must match"],
    ["an unknown encoding", [{ ...order, encoding: "avro" }], "entry 1: encoding must match"],
    [
      "a dead-letter topic that is the topic",
      [{ ...order, deadLetterTopic: order.topic }],
      "entry 1: deadLetterTopic must be another topic than shop.order-saga",
    ],
    ["a number", [{ ...order, name: 7 }], "entry 1: name must match"],
    ["no schema", [{ ...order, databaseUrl: "mysql://u:p@h:3306" }], "entry 1: databaseUrl must be a URL"],
    ["the same name", [order, { ...second, name: "order" }], "entry 2: entry 1 has the same name order"],
    ["the same table", [order, { ...order, name: "other" }], "entry 2: entry 1 has the same table order_outbox_event"],
  ];
  for (const [what, sources, message] of cases) test(what, () => expect(() => read(sources)).toThrow(message));

  test("and never the password", () => {
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
