import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { ConfigError, integer, port, readConfig, text } from "../kit/config.ts";

/** The processes of which `--instances` may start several. */
export const scalableNames = ["order", "inventory", "payment", "relay"] as const;
export type ScalableName = (typeof scalableNames)[number];

/** Instance n listens on the ports of the first plus 100 × (n − 1); more than nine would run into other ports. */
const instancePortStep = 100;
const instancesMax = 9;

export type Instances = Readonly<Record<ScalableName, number>>;

/** What the local stack is told: where its data lives, and its ports. Every port can be set by its own variable. */
export interface StackSettings {
  readonly host: "127.0.0.1";
  readonly root: string;
  readonly dataFolder: string;
  readonly cacheFolder: string;
  readonly logLevel: string;
  readonly ports: {
    readonly orderHttp: number;
    readonly orderGrpc: number;
    readonly gateway: number;
    readonly orderHealth: number;
    readonly inventoryHealth: number;
    readonly paymentHealth: number;
    readonly relayHealth: number;
    readonly relayHint: number;
    readonly mariadb: number;
    readonly kafka: number;
    readonly kafkaController: number;
  };
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The variable that sets each port, and its default. Errors about a taken port name the variable. */
export const portVariables = {
  orderHttp: { variable: "ORDER_HTTP_PORT", fallback: 8080 },
  orderGrpc: { variable: "ORDER_GRPC_PORT", fallback: 8081 },
  gateway: { variable: "GATEWAY_PORT", fallback: 8090 },
  orderHealth: { variable: "ORDER_HEALTH_PORT", fallback: 9464 },
  inventoryHealth: { variable: "INVENTORY_HEALTH_PORT", fallback: 9465 },
  paymentHealth: { variable: "PAYMENT_HEALTH_PORT", fallback: 9466 },
  relayHealth: { variable: "RELAY_HEALTH_PORT", fallback: 9467 },
  relayHint: { variable: "RELAY_HINT_PORT", fallback: 9470 },
  mariadb: { variable: "MARIADB_PORT", fallback: 3406 },
  kafka: { variable: "KAFKA_PORT", fallback: 19092 },
  kafkaController: { variable: "KAFKA_CONTROLLER_PORT", fallback: 19093 },
} as const;

export type PortName = keyof typeof portVariables;

/**
 * Reads the stack's settings. `STACK_PORT_OFFSET` is added to every default port and `STACK_DATA_DIR` holds all data,
 * so that a second stack runs beside the first.
 * @throws ConfigError naming each faulty variable.
 */
export function readStackSettings(env: Environment, root: string): StackSettings {
  const base = readConfig(env, {
    portOffset: integer("STACK_PORT_OFFSET", { fallback: 0, min: 0, max: 40_000 }),
    dataFolder: text("STACK_DATA_DIR", ".data"),
    logLevel: text("LOG_LEVEL", "info"),
  });
  const withOffset = (name: PortName) =>
    port(portVariables[name].variable, portVariables[name].fallback + base.portOffset);
  const ports = readConfig(env, {
    orderHttp: withOffset("orderHttp"),
    orderGrpc: withOffset("orderGrpc"),
    gateway: withOffset("gateway"),
    orderHealth: withOffset("orderHealth"),
    inventoryHealth: withOffset("inventoryHealth"),
    paymentHealth: withOffset("paymentHealth"),
    relayHealth: withOffset("relayHealth"),
    relayHint: withOffset("relayHint"),
    mariadb: withOffset("mariadb"),
    kafka: withOffset("kafka"),
    kafkaController: withOffset("kafkaController"),
  });
  return {
    host: "127.0.0.1",
    root,
    dataFolder: resolve(root, base.dataFolder),
    // An empty variable means that none is set: XDG Base Directory Specification.
    cacheFolder: resolve(env.XDG_CACHE_HOME || join(env.HOME || homedir(), ".cache"), "order-saga"),
    logLevel: base.logLevel,
    ports,
  };
}

/** The port of instance `number` (1 is the first) of something whose first instance listens on `first`. */
export function instancePort(first: number, number: number): number {
  return first + instancePortStep * (number - 1);
}

/** `order`, `order-2`, `order-3`, … */
export function instanceName(name: string, number: number): string {
  return number === 1 ? name : `${name}-${number}`;
}

/**
 * Parses `order=2,relay=2`; what is not named runs once.
 * @throws ConfigError that says which part is wrong.
 */
export function parseInstances(argument: string): Instances {
  const instances: Record<ScalableName, number> = { order: 1, inventory: 1, payment: 1, relay: 1 };
  for (const part of argument.split(",")) {
    const [name, digits] = part.split("=");
    const known = scalableNames.find((it) => it === name);
    const count = Number(digits);
    if (known === undefined || !/^\d+$/.test(digits ?? "") || count < 1 || count > instancesMax) {
      throw new ConfigError(
        `--instances takes a list like order=2,relay=2 (${scalableNames.join(", ")}; 1 to ${instancesMax} each), but has "${part}".`,
      );
    }
    instances[known] = count;
  }
  return instances;
}

/** Users of the local databases. Their passwords are their names: visible, and good for this machine only. */
export const databaseServices = ["order", "inventory", "payment"] as const;
export type DatabaseService = (typeof databaseServices)[number];

export function schemaName(service: DatabaseService): string {
  return `shop_${service}`;
}

/** The URL of one service's schema as one of the users, or as root when no user is named. */
export function databaseUrl(settings: StackSettings, service: DatabaseService, user?: string): string {
  const credentials = user === undefined ? "root" : `${user}:${user}`;
  return `mysql://${credentials}@${settings.host}:${settings.ports.mariadb}/${schemaName(service)}`;
}

/** The server itself as root, with no schema chosen. */
export function databaseAdminUrl(settings: StackSettings): string {
  return `mysql://root@${settings.host}:${settings.ports.mariadb}`;
}
