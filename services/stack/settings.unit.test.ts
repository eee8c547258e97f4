import { expect, test } from "bun:test";
import { ConfigError } from "../kit/config.ts";
import { serviceNames } from "./services.ts";
import {
  databaseUrl,
  instanceName,
  instancePort,
  parseInstances,
  portDefaults,
  readStackSettings,
} from "./settings.ts";

test("every default port is shifted by the offset, unless a variable sets it", () => {
  const settings = readStackSettings({ STACK_PORT_OFFSET: "1000", ORDER_HTTP_PORT: "7000", KAFKA_PORT: "7001" }, "/");
  expect(settings.servicePorts.order).toEqual({ http: 7000, grpc: 9081, health: 10464 });
  expect(settings.ports).toMatchObject({ mariadb: 4406, kafka: 7001, kafkaController: 20093 });
});

test("no two default ports are equal, for up to nine instances", () => {
  const { ports, servicePorts } = readStackSettings({}, "/");
  const single = [ports.gateway, ports.mariadb, ports.kafka, ports.kafkaController];
  const scaled = [ports.relayHealth, ports.relayHint, ...serviceNames.flatMap((it) => Object.values(servicePorts[it]))];
  const all = [...single, ...scaled.flatMap((port) => Array.from({ length: 9 }, (_, n) => instancePort(port, n + 1)))];
  expect(new Set(all).size).toBe(all.length);
  expect(portDefaults.size).toBe(single.length + scaled.length);
});

test("an invalid port is refused with the name of its variable", () => {
  expect(() => readStackSettings({ PAYMENT_HEALTH_PORT: "many", MARIADB_PORT: "-1" }, "/")).toThrow(
    /MARIADB_PORT must be .*PAYMENT_HEALTH_PORT must be /,
  );
});

test("a service's database is reached by the service's user, or by root", () => {
  const settings = readStackSettings({}, "/");
  expect(databaseUrl(settings, "payment", "shop_relay")).toBe(
    "mysql://shop_relay:shop_relay@127.0.0.1:3406/shop_payment",
  );
  expect(databaseUrl(settings, "payment")).toBe("mysql://root@127.0.0.1:3406/shop_payment");
});

test("processes that --instances does not name run once", () => {
  const once = Object.fromEntries([...serviceNames, "relay"].map((name) => [name, 1]));
  expect(parseInstances("order=2,relay=3")).toEqual({ ...once, order: 2, relay: 3 } as ReturnType<
    typeof parseInstances
  >);
  expect([1, 2].map((number) => instanceName("order", number))).toEqual(["order", "order-2"]);
});

test("--instances refuses unknown processes and counts that are not from 1 to 9", () => {
  for (const argument of ["mariadb=2", "order=0", "order=10", "order=two", "order", "", "order=2,"]) {
    expect(() => parseInstances(argument)).toThrow(ConfigError);
  }
});
