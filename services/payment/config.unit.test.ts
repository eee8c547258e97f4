import { expect, test } from "bun:test";
import { readPaymentConfig } from "./config.ts";

test("payment needs only DATABASE_URL; everything else has a default", () => {
  expect(readPaymentConfig({ DATABASE_URL: "mysql://payment@db/shop_payment" })).toEqual({
    host: "127.0.0.1",
    instance: "payment",
    logLevel: "info",
    kafkaBrokers: [{ host: "127.0.0.1", port: 19_092 }],
    healthPort: 9_466,
    databaseUrl: "mysql://payment@db/shop_payment",
    gatewayUrl: "http://127.0.0.1:8090",
    relayHints: [{ host: "127.0.0.1", port: 9_470 }],
    archiveRetentionHours: 360,
  });
});

test("payment refuses a faulty configuration and names every faulty variable", () => {
  expect(() => readPaymentConfig({ GATEWAY_URL: "gateway:8090" })).toThrow(/DATABASE_URL.*GATEWAY_URL/);
});
