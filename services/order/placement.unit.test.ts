import { describe, expect, test } from "bun:test";
import { newOrder, orderPlaced, type PlacementRequest, parseUuid, sameRequest } from "./placement.ts";

const orderId = "018f0000-0000-7000-8000-000000000001";
const prices = new Map([
  ["sku-0001", { currencyCode: "EUR", minorUnits: 250n }],
  ["sku-0002", { currencyCode: "EUR", minorUnits: 1_000n }],
  ["sku-usd", { currencyCode: "USD", minorUnits: 1n }],
]);
const priceOf = (sku: string) => prices.get(sku);
const good: PlacementRequest = {
  owner: "",
  requestId: "3F2504E0-4F89-41D3-9A0C-0305E82C3301",
  lines: [
    { sku: "sku-0001", quantity: 3 },
    { sku: "sku-0002", quantity: 1 },
  ],
  paymentMethod: "pm_ok",
};

test("a new order has Order's prices, their total, and the request id in lower case", () => {
  const order = newOrder(orderId, good, priceOf);
  expect(order.total).toEqual({ currencyCode: "EUR", minorUnits: 1_750n });
  expect(order.requestId).toBe("3f2504e0-4f89-41d3-9a0c-0305e82c3301");
  expect(order.lines[0]).toEqual({
    sku: "sku-0001",
    quantity: 3,
    unitPrice: { currencyCode: "EUR", minorUnits: 250n },
  });
  expect(orderPlaced(order)).toMatchObject({ orderId, paymentMethod: "pm_ok", total: { minorUnits: 1_750n } });
});

describe("a faulty request", () => {
  const line = { sku: "sku-0001", quantity: 1 };
  const cases: readonly [string, Partial<PlacementRequest>, RegExp][] = [
    ["no lines", { lines: [] }, /^lines must not be empty/],
    ["101 lines", { lines: Array(101).fill(line) }, /^lines must have at most 100 entries, but has 101/],
    [
      "an unknown SKU",
      { lines: [line, { sku: "sku-9999", quantity: 1 }] },
      /^lines\[1\]\.sku is not for sale: "sku-9999"/,
    ],
    ["quantity 0", { lines: [{ ...line, quantity: 0 }] }, /^lines\[0\]\.quantity must be 1 to 1000, but is 0/],
    ["quantity 1001", { lines: [{ ...line, quantity: 1_001 }] }, /^lines\[0\]\.quantity/],
    ["a SKU twice", { lines: [line, line] }, /^lines\[1\]\.sku appears twice/],
    ["two currencies", { lines: [line, { sku: "sku-usd", quantity: 1 }] }, /^lines must all be priced in one currency/],
    ["a payment method in capitals", { paymentMethod: "pm_OK" }, /^payment_method/],
    ["an empty payment method", { paymentMethod: "pm_" }, /^payment_method/],
    ["a payment method of 64 characters", { paymentMethod: `pm_${"a".repeat(61)}` }, /^payment_method/],
    ["a request id that is not a UUID", { requestId: "42" }, /^request_id must be a UUID, but is "42"/],
  ];
  for (const [name, change, message] of cases) {
    test(`a request with ${name} is refused with an error that names the field`, () => {
      expect(() => newOrder(orderId, { ...good, ...change }, priceOf)).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringMatching(message) }),
      );
    });
  }
});

test("an error message repeats only the beginning of a long text", () => {
  expect(() => parseUuid("order_id", "x".repeat(10_000))).toThrow(/^.{0,150}$/);
});

test("two requests are the same if their lines and payment method are, whatever the prices", () => {
  const order = newOrder(orderId, good, priceOf);
  expect(
    sameRequest(
      order,
      newOrder(orderId, good, () => ({ currencyCode: "EUR", minorUnits: 9n })),
    ),
  ).toBe(true);
  expect(sameRequest(order, { ...order, paymentMethod: "pm_declined" })).toBe(false);
  expect(sameRequest(order, { ...order, lines: order.lines.slice(1) })).toBe(false);
  expect(sameRequest(order, { ...order, lines: order.lines.toReversed() })).toBe(false);
});
