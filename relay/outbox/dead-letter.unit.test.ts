import { describe, expect, test } from "bun:test";
import type { OutboxRow } from "../../proto/envelope.ts";
import { type DeadLetter, deadLetterPayloadMaxBytes, toDeadLetter } from "./dead-letter.ts";

const row: OutboxRow = {
  id: "0197a2b0-0000-7000-8000-000000000001",
  aggregateId: "order-1",
  type: "shop.order.v1.OrderPlaced",
  payload: '{"orderId":"order-1"}',
  headers: "not JSON",
  occurredAt: new Date("2026-01-02T03:04:05.678Z"),
  seq: "42",
};
const letter: DeadLetter = {
  row,
  source: "order",
  ceSource: "/shop/order",
  qualifiedTable: "shop_order.order_outbox_event",
  topic: "shop.order-saga",
  error: "UnencodablePayloadError: headers is not JSON",
  attempts: 10,
  failedAt: new Date("2026-01-02T03:12:00.000Z"),
};
const text = (value: Uint8Array) => new TextDecoder("utf-8", { fatal: true }).decode(value);

test("a dead letter holds the payload, the event's headers, its origin, the error, the time and the attempts", () => {
  const record = toDeadLetter(letter);
  expect(record.key).toBe("order-1");
  expect(text(record.value)).toBe(row.payload);
  expect(record.headers).toEqual({
    ce_specversion: "1.0",
    ce_id: row.id,
    ce_type: row.type,
    ce_source: "/shop/order",
    ce_time: "2026-01-02T03:04:05.678Z",
    ce_subject: "order-1",
    ce_sequence: "42",
    "content-type": "text/plain; charset=utf-8",
    dead_letter_source: "order",
    dead_letter_table: "shop_order.order_outbox_event",
    dead_letter_row_id: row.id,
    dead_letter_topic: "shop.order-saga",
    dead_letter_error: "UnencodablePayloadError: headers is not JSON",
    dead_letter_attempts: "10",
    dead_letter_failed_at: "2026-01-02T03:12:00.000Z",
    dead_letter_payload_bytes: "21",
    dead_letter_payload_cut: "false",
  });
});

describe("the payload of a dead letter", () => {
  const letterWith = (payload: string) => toDeadLetter({ ...letter, row: { ...row, payload } });

  test("a dead letter holds a payload of 16 KiB completely", () => {
    const record = letterWith("x".repeat(deadLetterPayloadMaxBytes));
    expect(record.value.byteLength).toBe(deadLetterPayloadMaxBytes);
    expect(record.headers.dead_letter_payload_cut).toBe("false");
  });

  test("a dead letter cuts a longer payload and says its length", () => {
    const record = letterWith("x".repeat(deadLetterPayloadMaxBytes + 1));
    expect(record.value.byteLength).toBe(deadLetterPayloadMaxBytes);
    expect(record.headers).toMatchObject({ dead_letter_payload_cut: "true", dead_letter_payload_bytes: "16385" });
  });

  for (const shift of [0, 1, 2, 3]) {
    test(`a dead letter cuts a payload of 4-byte characters between two of them, at a shift of ${shift} bytes`, () => {
      const payload = "x".repeat(shift) + "😀".repeat(5_000);
      const shown = text(letterWith(payload).value);
      expect(payload.startsWith(shown)).toBe(true);
      expect(Buffer.byteLength(shown)).toBeGreaterThan(deadLetterPayloadMaxBytes - 4);
    });
  }
});
