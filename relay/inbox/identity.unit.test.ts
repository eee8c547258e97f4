import { describe, expect, test } from "bun:test";
import { type ReceivedEnvelope, UndecodableRecordError } from "../../proto/envelope.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { identityOf, identityOfUndecodable, publishedAtOf } from "./identity.ts";

const recordOf = (change: Partial<TopicRecord> = {}): TopicRecord => ({
  key: Buffer.from("order-1"),
  value: Buffer.from([1, 2, 3]),
  headers: { ce_id: Buffer.from("event-1"), ce_source: Buffer.from("/shop/order") },
  partition: 3,
  offset: "12",
  publishedAt: new Date("2024-05-06T07:08:09.123Z"),
  ...change,
});

describe("the identity of an undecodable record", () => {
  const identify = (change?: Partial<TopicRecord>) => identityOfUndecodable(recordOf(change), "type");

  test("an undecodable record keeps its own id and key if they are valid", () => {
    expect(identify()).toEqual({
      eventId: "event-1",
      key: "order-1",
      type: "type",
      source: "/shop/order",
      occurredAt: undefined,
    });
    expect(identify({ key: null, headers: { ce_subject: "order-2" } }).key).toBe("order-2");
  });

  test("an undecodable record without id or key gets a digest, the same at every delivery and unique to it", () => {
    const first = identify({ key: null, headers: {} });
    expect(first.eventId).toMatch(/^raw-[0-9a-f]{32}$/);
    expect(first.key).toBe(first.eventId);
    expect(identify({ key: null, headers: {} })).toEqual(first);
    const others = [
      identify({ key: null, headers: {}, offset: "13" }),
      identify({ key: null, headers: {}, partition: 4 }),
      identify({ key: null, headers: {}, value: null }),
      // The offsets of a recreated topic start at 0 again.
      identify({ key: null, headers: {}, publishedAt: new Date(2e12) }),
    ];
    expect(new Set([first, ...others].map((it) => it.eventId)).size).toBe(5);
  });

  test("null headers of an undecodable record count as absent", () => {
    const nulls = { ce_id: null, ce_source: null, ce_subject: [null] };
    expect(identify({ key: null, headers: nulls })).toEqual(identify({ key: null, headers: {} }));
  });

  test("all records with the same invalid key get the same key", () => {
    const long = Buffer.from("x".repeat(129));
    const [first, second] = [identify({ key: long, offset: "1" }), identify({ key: long, offset: "2" })];
    expect(first.key).toBe(second.key);
    expect(first.key.length).toBe(36);
    expect(identify({ key: Buffer.from("") }).key).toMatch(/^raw-/);
    expect(identify({ headers: { ce_id: "x".repeat(37) } }).eventId).toMatch(/^raw-/);
    expect(identify({ headers: { ce_id: "blank " } }).eventId).toMatch(/^raw-/);
  });
});

test("an envelope with a part that does not fit its column is refused", () => {
  const envelope: ReceivedEnvelope = {
    id: "018f0000-0000-7000-8000-000000000000",
    type: "shop.order.v1.OrderPlaced",
    ceSource: "/shop/order",
    aggregateId: "order-1",
    occurredAt: new Date(),
    sequence: "1",
    headers: {},
    payload: new Uint8Array(),
  };
  expect(identityOf(envelope).key).toBe("order-1");
  // 128 characters, each two UTF-16 code units.
  expect(identityOf({ ...envelope, aggregateId: "🙂".repeat(128) }).key.length).toBe(256);
  const misfits: Partial<ReceivedEnvelope>[] = [
    { id: "x".repeat(37) },
    { id: "a b" },
    { aggregateId: "🙂".repeat(129) },
    { aggregateId: "order-1 " },
    { aggregateId: "" },
    { ceSource: "x".repeat(129) },
    { occurredAt: new Date(0) },
    { occurredAt: new Date("2200-01-01") },
  ];
  for (const misfit of misfits) expect(() => identityOf({ ...envelope, ...misfit })).toThrow(UndecodableRecordError);
});

test("a record's time is limited to the range of a TIMESTAMP", () => {
  const years = [new Date(-1), new Date("2024-01-01"), new Date("2300-01-01")].map((publishedAt) =>
    publishedAtOf(recordOf({ publishedAt })).getUTCFullYear(),
  );
  expect(years).toEqual([1970, 2024, 2038]);
});
