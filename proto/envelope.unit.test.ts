import { describe, expect, test } from "bun:test";
import { create, createRegistry } from "@bufbuild/protobuf";
import {
  type ConsumedRecord,
  decodePayload,
  type EventRecord,
  fromRecord,
  type NewEvent,
  type OutboxRow,
  SchemaBehindError,
  toOutboxRow,
  toRecord,
  typeOfRecord,
  UndecodableRecordError,
  UnencodablePayloadError,
} from "./envelope.ts";
import { eventRegistry, eventTable, eventTypesHandledBy } from "./event-table.ts";
import { OrderFailedSchema, OrderPlacedSchema } from "./gen/shop/order/v1/events_pb.ts";
import { Order_FailureReason } from "./gen/shop/order/v1/order_pb.ts";

const placed = create(OrderPlacedSchema, {
  orderId: "order-1",
  lines: [{ sku: "sku-0001", quantity: 2 }],
  total: { currencyCode: "EUR", minorUnits: 9_007_199_254_740_993n },
  paymentMethod: "pm_ok",
});
const newEvent: NewEvent = {
  id: "event-1",
  aggregateId: "order-1",
  message: placed,
  headers: { traceparent: "00-a-b-01", correlationId: "request-1", causationId: "event-0" },
};
const rowOf = (event: NewEvent): OutboxRow => ({
  ...toOutboxRow(event, eventRegistry),
  occurredAt: new Date("2026-01-02T03:04:05.678Z"),
  seq: "18446744073709551615",
});
const options = { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry } as const;
/** The record as a broker delivers it, with bytes everywhere. */
const delivered = (record: EventRecord): ConsumedRecord => ({
  key: Buffer.from(record.key),
  value: record.value,
  headers: Object.fromEntries(Object.entries(record.headers).map(([name, value]) => [name, Buffer.from(value)])),
});

test("a message and its headers come through outbox and topic unchanged", () => {
  const record = delivered(toRecord(rowOf(newEvent), options));
  const envelope = fromRecord(record);
  expect(typeOfRecord(record)).toBe("shop.order.v1.OrderPlaced");
  expect(envelope).toMatchObject({
    id: "event-1",
    type: "shop.order.v1.OrderPlaced",
    ceSource: "/shop/order",
    aggregateId: "order-1",
    sequence: "18446744073709551615",
    headers: newEvent.headers,
    occurredAt: new Date("2026-01-02T03:04:05.678Z"),
  });
  expect(decodePayload(envelope, eventRegistry)).toEqual(placed);
});

test("every event type of the event table can be encoded and decoded", () => {
  for (const { schema } of eventTable) {
    const message = create(schema, { orderId: "order-1" });
    const record = toRecord(rowOf({ ...newEvent, message }), options);
    expect(decodePayload(fromRecord(delivered(record)), eventRegistry)).toEqual(message);
  }
});

test("the outbox payload is JSON with enum values by name", () => {
  const message = create(OrderFailedSchema, { orderId: "order-1", reason: Order_FailureReason.OUT_OF_STOCK });
  expect(JSON.parse(toOutboxRow({ ...newEvent, message }, eventRegistry).payload)).toEqual({
    orderId: "order-1",
    reason: "OUT_OF_STOCK",
  });
});

test("a record's headers follow CloudEvents 1.0 in binary mode", () => {
  const { key, headers } = toRecord(rowOf(newEvent), options);
  expect(key).toBe("order-1");
  expect(headers).toEqual({
    ce_specversion: "1.0",
    ce_id: "event-1",
    ce_type: "shop.order.v1.OrderPlaced",
    ce_source: "/shop/order",
    ce_time: "2026-01-02T03:04:05.678Z",
    ce_subject: "order-1",
    ce_sequence: "18446744073709551615",
    "content-type": "application/protobuf",
    traceparent: "00-a-b-01",
    ce_correlationid: "request-1",
    ce_causationid: "event-0",
  });
});

test("the encoding json copies the payload unchanged and needs no schema", () => {
  const row = { ...rowOf(newEvent), type: "any.Thing", payload: '{"a":"ä"}', headers: null };
  const record = toRecord(row, { ...options, encoding: "json", registry: createRegistry() });
  expect(new TextDecoder().decode(record.value)).toBe('{"a":"ä"}');
  expect(record.headers["content-type"]).toBe("application/json");
});

describe("a row that cannot be encoded", () => {
  const encode = (change: Partial<OutboxRow>) => () => toRecord({ ...rowOf(newEvent), ...change }, options);
  test("a malformed payload or header is unencodable, whatever the schema", () => {
    for (const payload of ["", "not json", "[]", '{"orderId": 7}', '{"lines": [{"quantity": -1}]}']) {
      expect(encode({ payload })).toThrow(UnencodablePayloadError);
    }
    expect(encode({ headers: "{" })).toThrow(UnencodablePayloadError);
    expect(encode({ headers: "7" })).toThrow(UnencodablePayloadError);
  });
  test("if a field is repeated in a payload, the last value wins, as in a JSON column", () => {
    const twice = encode({ payload: '{"orderId":"order-1","orderId":"order-2"}' })();
    expect(twice.value).toEqual(encode({ payload: '{"orderId":"order-2"}' })().value);
  });
  test("a new type, field or enum value in a payload means that the schema is behind", () => {
    expect(encode({ type: "shop.shipping.v1.ParcelSent" })).toThrow(SchemaBehindError);
    expect(encode({ payload: '{"orderId":"order-1","giftWrap":true}' })).toThrow(SchemaBehindError);
    const failed = { type: "shop.order.v1.OrderFailed", payload: '{"orderId":"order-1","reason":"LOST_IN_SPACE"}' };
    expect(encode(failed)).toThrow(SchemaBehindError);
  });
});

describe("odd headers", () => {
  const good = delivered(toRecord(rowOf(newEvent), options));
  const withHeaders = (change: NonNullable<ConsumedRecord["headers"]>) => ({
    ...good,
    headers: { ...good.headers, ...change },
  });

  test("a header with a null value counts as absent", () => {
    expect(typeOfRecord(withHeaders({ ce_type: null }))).toBeUndefined();
    const envelope = fromRecord(withHeaders({ traceparent: null, ce_correlationid: [null], ce_causationid: [] }));
    expect(envelope.headers).toEqual({});
    expect(fromRecord(withHeaders({ ce_id: [null, Buffer.from("event-2")] })).id).toBe("event-2");
  });

  for (const name of Object.keys(good.headers ?? {}).filter((it) => /^ce_(id|type|source|time|sequence)$/.test(it))) {
    test(`a record whose ${name} is null cannot be decoded, and the error names the header`, () => {
      const parse = () => fromRecord(withHeaders({ [name]: null }));
      expect(parse).toThrow(UndecodableRecordError);
      expect(parse).toThrow(name);
    });
  }
});

describe("undecodable records", () => {
  const good = delivered(toRecord(rowOf(newEvent), options));
  const { ce_id: _, ...withoutId } = good.headers ?? {};
  const cases: Readonly<Record<string, ConsumedRecord>> = {
    "has no headers": { ...good, headers: undefined },
    "has no id": { ...good, headers: withoutId },
    "has a malformed time": { ...good, headers: { ...good.headers, ce_time: "yesterday" } },
    "has a malformed sequence": { ...good, headers: { ...good.headers, ce_sequence: "one" } },
    "has no value": { ...good, value: null },
  };
  for (const [name, record] of Object.entries(cases)) {
    test(`a record that ${name} cannot be decoded`, () =>
      expect(() => fromRecord(record)).toThrow(UndecodableRecordError));
  }
  test("a record whose payload is not Protobuf cannot be decoded", () => {
    const envelope = fromRecord({ ...good, value: new Uint8Array([0xff, 0xff]) });
    expect(() => decodePayload(envelope, eventRegistry)).toThrow(UndecodableRecordError);
  });
});

test("events and answers belong to the package of the service that publishes them", () => {
  expect([...eventTypesHandledBy("payment")].sort()).toEqual([
    "shop.inventory.v1.StockReserved",
    "shop.order.v1.OrderCancelRequested",
    "shop.order.v1.OrderPlaced",
  ]);
  for (const row of eventTable) {
    expect(row.schema.typeName).toStartWith(`shop.${row.publishedBy}.v1.`);
    for (const reaction of row.reactions) {
      for (const answer of reaction.answers) expect(answer.typeName).toStartWith(`shop.${reaction.service}.v1.`);
    }
  }
});
