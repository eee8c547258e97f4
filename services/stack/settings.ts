import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { ServiceName } from "../../proto/event-table.ts";
import { ConfigError, type HostPort, integer, port, readConfig, text } from "../kit/config.ts";
import { byService, schemaName, serviceNames, services } from "./services.ts";

/** The processes of which `--instances` may start several. */
export const scalableNames = [...serviceNames, "relay"] as const;
export type ScalableName = (typeof scalableNames)[number];

/** Instance n listens on the ports of the first plus 100 × (n − 1). More than nine would collide with other ports. */
const instancePortStep = 100;
export const instancesMax = 9;

export type Instances = Readonly<Record<ScalableName, number>>;

export const oneInstanceEach: Instances = { ...byService(() => 1), relay: 1 };

/** What `--brokers` may be. Two would be worth less than one: a majority of two needs both. */
export const brokerCounts = [1, 3] as const;
export type BrokerCount = (typeof brokerCounts)[number];

/** The ports of everything but the services: the variable that sets each, and the default. */
const ports = {
  gateway: ["GATEWAY_PORT", 8090],
  relayHealth: ["RELAY_HEALTH_PORT", 9467],
  relayHint: ["RELAY_HINT_PORT", 9470],
  mariadb: ["MARIADB_PORT", 3406],
  kafka: ["KAFKA_PORT", 19092],
  kafkaController: ["KAFKA_CONTROLLER_PORT", 19093],
} as const;

export type PortName = keyof typeof ports;

/** The variable that sets a port. Errors about a taken port name it. */
export function portVariable(name: PortName): string {
  return ports[name][0];
}

/** `ORDER_HTTP_PORT` for the port `http` of `order`. */
export function servicePortVariable(service: ServiceName, port: string): string {
  return `${service}_${port}_port`.toUpperCase();
}

/** Every variable that sets a port, and the default. */
export const portDefaults: ReadonlyMap<string, number> = new Map([
  ...Object.values(ports),
  ...serviceNames.flatMap((service) =>
    Object.entries(services[service].ports).map(
      ([port, number]) => [servicePortVariable(service, port), number] as const,
    ),
  ),
]);

/** The configuration of the local stack: where its data lives, its brokers, and the port of each first instance. */
export interface StackSettings {
  readonly host: "127.0.0.1";
  readonly root: string;
  readonly dataFolder: string;
  readonly cacheFolder: string;
  readonly logLevel: string;
  /** How many Kafka brokers run. Broker n listens on the ports of the first plus 100 × (n − 1). */
  readonly brokers: BrokerCount;
  readonly ports: Readonly<Record<PortName, number>>;
  readonly servicePorts: {
    readonly [S in ServiceName]: { readonly [P in keyof (typeof services)[S]["ports"]]: number };
  };
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the stack's settings. `STACK_PORT_OFFSET` is added to every default port and `STACK_DATA_DIR` holds all data,
 * so that a second stack can run beside the first.
 * @throws ConfigError that names each invalid variable.
 */
export function readStackSettings(env: Environment, root: string, brokers: BrokerCount = 1): StackSettings {
  const base = readConfig(env, {
    portOffset: integer("STACK_PORT_OFFSET", { fallback: 0, min: 0, max: 40_000 }),
    dataFolder: text("STACK_DATA_DIR", ".data"),
    logLevel: text("LOG_LEVEL", "info"),
  });
  const numbers = readConfig(
    env,
    Object.fromEntries(
      Array.from(portDefaults, ([variable, number]) => [variable, port(variable, number + base.portOffset)]),
    ),
  );
  const portsOf = (service: ServiceName) =>
    Object.fromEntries(
      Object.keys(services[service].ports).map((name) => [name, numbers[servicePortVariable(service, name)]]),
    );
  return {
    host: "127.0.0.1",
    root,
    dataFolder: resolve(root, base.dataFolder),
    // By the XDG Base Directory Specification, an empty variable counts as not set.
    cacheFolder: resolve(env.XDG_CACHE_HOME || join(env.HOME || homedir(), ".cache"), "order-saga"),
    logLevel: base.logLevel,
    brokers,
    ports: Object.fromEntries(
      Object.entries(ports).map(([name, [variable]]) => [name, numbers[variable]]),
    ) as StackSettings["ports"],
    servicePorts: byService(portsOf) as StackSettings["servicePorts"],
  };
}

/** The port of instance `number`, 1 being the first, if the first instance listens on `first`. */
export function instancePort(first: number, number: number): number {
  return first + instancePortStep * (number - 1);
}

/** `order`, `order-2`, `order-3`, … */
export function instanceName(name: string, number: number): string {
  return number === 1 ? name : `${name}-${number}`;
}

/**
 * Parses `order=2,relay=2`. A process that is not named runs once.
 * @throws ConfigError that says which part is wrong.
 */
export function parseInstances(argument: string): Instances {
  const instances: Record<ScalableName, number> = { ...oneInstanceEach };
  for (const part of argument.split(",")) {
    const [name, digits] = part.split("=");
    const known = scalableNames.find((it) => it === name);
    const count = Number(digits);
    if (known === undefined || !/^\d+$/.test(digits ?? "") || count < 1 || count > instancesMax) {
      throw new ConfigError(
        `--instances takes a list like order=2,relay=2 (${scalableNames.join(", ")}; 1 to ${instancesMax} each), and "${part}" is not valid.`,
      );
    }
    instances[known] = count;
  }
  return instances;
}

/** Parses the argument of `--brokers`. @throws ConfigError that says what is allowed. */
export function parseBrokers(argument: string): BrokerCount {
  const count = brokerCounts.find((it) => String(it) === argument);
  if (count === undefined) {
    throw new ConfigError(`--brokers takes ${brokerCounts.join(" or ")}, and "${argument}" is not valid.`);
  }
  return count;
}

/** The ports of each broker: for clients, and for its controller. The name is that of its process, log and data folder. */
export function brokerPorts({ brokers, ports }: StackSettings) {
  return numbersOf(brokers).map((number) => ({
    number,
    name: instanceName("kafka", number),
    client: instancePort(ports.kafka, number),
    controller: instancePort(ports.kafkaController, number),
  }));
}

/** Where clients reach the brokers. */
export function brokerAddresses(settings: StackSettings): readonly HostPort[] {
  return brokerPorts(settings).map(({ client }) => ({ host: settings.host, port: client }));
}

/** 1 to `count`. */
export function numbersOf(count: number): readonly number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

/** The URL of a service's schema, for one of the users or, without `user`, for root. */
export function databaseUrl(settings: StackSettings, service: ServiceName, user?: string): string {
  const credentials = user === undefined ? "root" : `${user}:${user}`;
  return `mysql://${credentials}@${settings.host}:${settings.ports.mariadb}/${schemaName(service)}`;
}

/** The URL of the server for root, without a schema. */
export function databaseAdminUrl(settings: StackSettings): string {
  return `mysql://root@${settings.host}:${settings.ports.mariadb}`;
}
