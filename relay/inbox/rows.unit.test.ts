import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { UndecodableRecordError } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { type OrderPlaced, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { asTopicRecord } from "../testing.ts";
import { type Interest, readEntries } from "./rows.ts";

const interest: Interest<OrderPlaced> = {
  registry: eventRegistry,
  handles: new Set(["shop.order.v1.OrderPlaced"]),
  records: "handled",
  keyOf: ({ orderId }) => orderId,
};

function recordOf(orderId: string, key = orderId): TopicRecord {
  const message = create(OrderPlacedSchema, { orderId });
  return asTopicRecord({ id: Bun.randomUUIDv7(), aggregateId: key, message, headers: {} }, { ceSource: "/shop/order" });
}

const errorsOf = (records: readonly TopicRecord[], some: Interest<OrderPlaced> = interest) =>
  readEntries(records, some).entries.map(({ decodeError }) => decodeError);

describe("reading a batch", () => {
  test("whatever is thrown while a record is read is the fault of that record", () => {
    const hostile = recordOf("order-2");
    const thrown = new TypeError("undefined is not an object");
    const records = [recordOf("order-1"), hostile, recordOf("order-3")];
    const errors = errorsOf(records, {
      ...interest,
      keyOf({ orderId }) {
        if (orderId === "order-2") throw thrown;
        return orderId;
      },
    });
    expect(errors).toEqual([undefined, expect.any(UndecodableRecordError), undefined]);
    expect(errors[1]?.cause).toBe(thrown);
    expect(errors[1]?.message).toContain("undefined is not an object");
  });

  test("an event that belongs to another key than that of its record does not decode, and is read under its record's key", () => {
    const { entries } = readEntries([recordOf("order-1", "order-2"), recordOf("order-3")], interest);
    expect(entries.map(({ identity }) => identity.key)).toEqual(["order-2", "order-3"]);
    expect(entries[0]?.event).toBeUndefined();
    expect(entries[0]?.decodeError?.message).toContain("order-1");
    expect(entries[1]?.decodeError).toBeUndefined();
  });

  test("null headers make no record unreadable, and only the required ones make an event undecodable", () => {
    const good = recordOf("order-1");
    const names = [...Object.keys(good.headers ?? {}), "traceparent", "ce_correlationid"];
    const records = names.map((name, offset) => ({
      ...recordOf("order-1"),
      offset: String(offset),
      headers: { ...recordOf("order-1").headers, [name]: null },
    }));
    const { entries, skipped } = readEntries(records, interest);
    expect(skipped).toBe(1);
    expect(entries.length).toBe(names.length - 1);
    const undecodable = entries.filter(({ decodeError }) => decodeError !== undefined).map((it) => it.record.offset);
    expect(undecodable.map((offset) => names[Number(offset)]).sort()).toEqual([
      "ce_id",
      "ce_sequence",
      "ce_source",
      "ce_time",
    ]);
  });
});
