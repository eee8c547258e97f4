import { expect, test } from "bun:test";
import { ConfigError } from "../kit/config.ts";
import { planProcesses } from "./processes.ts";
import { serviceNames } from "./services.ts";
import {
  brokerPorts,
  databaseUrl,
  instanceName,
  instancePort,
  oneInstanceEach,
  parseBrokers,
  parseInstances,
  portDefaults,
  readStackSettings,
} from "./settings.ts";

test("every default port is shifted by the offset, unless a variable sets it", () => {
  const settings = readStackSettings({ STACK_PORT_OFFSET: "1000", ORDER_HTTP_PORT: "7000", KAFKA_PORT: "7001" }, "/");
  expect(settings.servicePorts.order).toEqual({ http: 7000, grpc: 9081, health: 10464 });
  expect(settings.ports).toMatchObject({ mariadb: 4406, kafka: 7001, kafkaController: 20093 });
});

test("no two default ports are equal, for up to nine instances and three brokers", () => {
  const settings = readStackSettings({}, "/", 3);
  const { ports, servicePorts } = settings;
  const brokers = brokerPorts(settings).flatMap(({ client, controller }) => [client, controller]);
  const single = [ports.gateway, ports.mariadb, ...brokers];
  const scaled = [ports.relayHealth, ports.relayHint, ...serviceNames.flatMap((it) => Object.values(servicePorts[it]))];
  const all = [...single, ...scaled.flatMap((port) => Array.from({ length: 9 }, (_, n) => instancePort(port, n + 1)))];
  expect(new Set(all).size).toBe(all.length);
  expect(portDefaults.size).toBe(
    [ports.gateway, ports.mariadb, ports.kafka, ports.kafkaController].length + scaled.length,
  );
});

test("three brokers have ports of their own, and every process gets the addresses of all", () => {
  const settings = readStackSettings({ KAFKA_PORT: "7000", STACK_PORT_OFFSET: "10" }, "/", 3);
  expect(brokerPorts(settings).map(({ name, client, controller }) => [name, client, controller])).toEqual([
    ["kafka", 7000, 19_103],
    ["kafka-2", 7100, 19_203],
    ["kafka-3", 7200, 19_303],
  ]);
  const { gateway, others, stackFile } = planProcesses(settings, oneInstanceEach);
  const brokers = ["127.0.0.1:7000", "127.0.0.1:7100", "127.0.0.1:7200"];
  expect(stackFile.kafka.brokers).toEqual(brokers);
  expect(new Set(others.map(({ env }) => env.KAFKA_BROKERS))).toEqual(new Set([brokers.join(",")]));
  expect(gateway.env.KAFKA_BROKERS).toBeUndefined();
});

test("--brokers takes 1 or 3", () => {
  expect([parseBrokers("1"), parseBrokers("3")]).toEqual([1, 3]);
  for (const argument of ["", "0", "2", "03", "three", "3,3"]) {
    expect(() => parseBrokers(argument)).toThrow("--brokers takes 1 or 3");
  }
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
