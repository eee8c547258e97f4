/**
 * The services of the system. Set-up, processes, ports, code generation, tests and tools all read this one list.
 *
 * To add a service: a folder `services/NAME`, a proto package, an entry here and one in `compose.yaml`. Its name goes
 * into `ServiceName`, and the events that it publishes and reacts to into the table, both in `proto/event-table.ts`.
 */
import type { ServiceName } from "../../proto/event-table.ts";

/** A service's name is also its folder, its consumer group, its INSTANCE and the prefix of its tables. */
export interface ServiceDefinition {
  /**
   * The default ports of the first instance. For `http` of `order`, the variable `ORDER_HTTP_PORT` changes the port, and
   * the process finds it in `HTTP_PORT`.
   */
  readonly ports: Readonly<Record<"health", number> & Partial<Record<"http" | "grpc", number>>>;
  /** The table with one row per order; its primary key is `order_id`. */
  readonly aggregateTable: string;
  /** Variables that its process needs and others do not. */
  readonly environment?: (stack: { readonly gatewayUrl: string }) => Readonly<Record<string, string>>;
  /** Inserts demo data. Rows that exist stay. */
  readonly seed?: (databaseUrl: string) => Promise<void>;
}

export const services = {
  order: {
    ports: { http: 8080, grpc: 8081, health: 9464 },
    aggregateTable: "orders",
    seed: async (databaseUrl) => (await import("../order/seed.ts")).seedPrices(databaseUrl),
  },
  inventory: {
    ports: { health: 9465 },
    aggregateTable: "reservation",
    seed: async (databaseUrl) => (await import("../inventory/seed.ts")).seedStock(databaseUrl),
  },
  payment: {
    ports: { health: 9466 },
    aggregateTable: "payment",
    environment: ({ gatewayUrl }) => ({ GATEWAY_URL: gatewayUrl }),
  },
} as const satisfies Record<ServiceName, ServiceDefinition>;

export const serviceNames = Object.keys(services) as readonly ServiceName[];

/** An object with one value for each service. */
export function byService<T>(value: (name: ServiceName) => T): Readonly<Record<ServiceName, T>> {
  return Object.fromEntries(serviceNames.map((name) => [name, value(name)])) as Record<ServiceName, T>;
}

/** The service's schema. Its database user and that user's password have the same name. */
export function schemaName(service: ServiceName): string {
  return `shop_${service}`;
}
