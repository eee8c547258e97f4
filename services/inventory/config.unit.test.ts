import { expect, test } from "bun:test";
import { readInventoryConfig } from "./config.ts";

test("inventory needs only DATABASE_URL; everything else has a default", () => {
  expect(readInventoryConfig({ DATABASE_URL: "mysql://inventory@db/shop_inventory" })).toEqual({
    host: "127.0.0.1",
    instance: "inventory",
    logLevel: "info",
    kafkaBrokers: [{ host: "127.0.0.1", port: 19_092 }],
    healthPort: 9_465,
    databaseUrl: "mysql://inventory@db/shop_inventory",
    relayHints: [{ host: "127.0.0.1", port: 9_470 }],
    archiveRetentionHours: 360,
  });
});

test("inventory refuses a faulty configuration and names every faulty variable", () => {
  expect(() => readInventoryConfig({ HEALTH_PORT: "http" })).toThrow(/HEALTH_PORT.*DATABASE_URL/);
});
