import { join } from "node:path";
import { sagaTopic } from "../../proto/event-table.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import {
  databaseServices,
  databaseUrl,
  type Instances,
  instanceName,
  instancePort,
  type PortName,
  type StackSettings,
  schemaName,
} from "./settings.ts";
import type { OrderEndpoints, StackFile } from "./stack-file.ts";
import type { ProcessSpec } from "./supervisor.ts";

const probeTimeoutMs = 2_000;

/**
 * How JavaScriptCore is run in every process of ours. Two cores have no room for threads that work beside the work: without
 * its third compiler tier and without concurrent collection an order costs a fifth less of CPU at 30 a second.
 */
export const runtimeEnvironment = {
  BUN_JSC_useConcurrentGC: "0",
  BUN_JSC_useFTLJIT: "0",
  // The allocator's own thread looks for pages to give back all the time: a quarter of what an idle relay costs.
  MIMALLOC_PURGE_HOLES_MIN_INTERVAL: "10000",
};

/**
 * A relay makes much garbage and keeps little; left alone, the heap grows by what the machine has. As if that were 1 GiB,
 * a drain takes less than 120 MB instead of 180, for a quarter more of CPU.
 */
export const relayRuntimeEnvironment = { ...runtimeEnvironment, BUN_JSC_forceRAMSize: String(1_024 ** 3) };

/** How to run our own processes: every instance of every service, the relays, the gateway. */
export interface ProcessPlan {
  readonly gateway: ProcessSpec;
  readonly others: readonly ProcessSpec[];
  /** What the stack file says, but for the process ids. */
  readonly stackFile: Omit<StackFile, "processes">;
}

/** Spells out what every process is told: each reads its own environment and nothing else. */
export function planProcesses(settings: StackSettings, instances: Instances): ProcessPlan {
  const { host, ports } = settings;
  const common = { HOST: host, LOG_LEVEL: settings.logLevel, KAFKA_BROKERS: `${host}:${ports.kafka}` };
  const gatewayUrl = `http://${host}:${ports.gateway}`;
  const relayHints = Array.from(
    { length: instances.relay },
    (_, index) => `${host}:${instancePort(ports.relayHint, index + 1)}`,
  ).join(",");
  const relaySources = databaseServices.map((name) => ({
    name,
    databaseUrl: databaseUrl(settings, name, "shop_relay"),
    outboxTable: outboxTableName(name),
    archiveTable: outboxArchiveTableName(name),
    topic: sagaTopic,
    encoding: "protobuf",
  }));
  const orders: [string, OrderEndpoints][] = [];
  const health: Record<string, string> = { gateway: gatewayUrl };
  const others: ProcessSpec[] = [];

  const add = (
    service: keyof Instances,
    healthPort: PortName,
    program: string,
    environmentOf: (number: number) => Readonly<Record<string, string>>,
  ) => {
    for (let number = 1; number <= instances[service]; number++) {
      const name = instanceName(service, number);
      const privatePort = instancePort(ports[healthPort], number);
      health[name] = `http://${host}:${privatePort}`;
      others.push({
        name,
        stage: service === "relay" ? "relay" : "service",
        command: [process.execPath, program],
        env: {
          ...runtimeEnvironment,
          ...common,
          INSTANCE: name,
          HEALTH_PORT: String(privatePort),
          ...environmentOf(number),
        },
        isReady: () => answers(`http://${host}:${privatePort}/readyz`),
      });
    }
  };
  const database = (service: (typeof databaseServices)[number]) => ({
    DATABASE_URL: databaseUrl(settings, service, schemaName(service)),
    RELAY_HINTS: relayHints,
  });
  add("order", "orderHealth", "services/order/main.ts", (number) => {
    const http = instancePort(ports.orderHttp, number);
    const grpc = instancePort(ports.orderGrpc, number);
    orders.push([instanceName("order", number), { http: `http://${host}:${http}`, grpc: `http://${host}:${grpc}` }]);
    return { ...database("order"), HTTP_PORT: String(http), GRPC_PORT: String(grpc) };
  });
  add("inventory", "inventoryHealth", "services/inventory/main.ts", () => database("inventory"));
  add("payment", "paymentHealth", "services/payment/main.ts", () => ({
    ...database("payment"),
    GATEWAY_URL: gatewayUrl,
  }));
  add("relay", "relayHealth", "relay/main.ts", (number) => ({
    ...relayRuntimeEnvironment,
    RELAY_HINT_PORT: String(instancePort(ports.relayHint, number)),
    RELAY_SOURCES: JSON.stringify(relaySources),
    RELAY_DESCRIPTOR_SET: join(settings.root, "proto/gen/descriptors.binpb"),
  }));

  return {
    gateway: {
      name: "gateway",
      stage: "gateway",
      command: [process.execPath, "services/stack/fake-gateway.ts"],
      env: {
        ...runtimeEnvironment,
        HOST: host,
        GATEWAY_PORT: String(ports.gateway),
        GATEWAY_LEDGER: join(settings.dataFolder, "gateway/ledger.sqlite"),
      },
      isReady: () => answers(`${gatewayUrl}/livez`),
    },
    others,
    stackFile: {
      order: { http: `http://${host}:${ports.orderHttp}`, grpc: `http://${host}:${ports.orderGrpc}` },
      ...Object.fromEntries(orders.slice(1)),
      kafka: { brokers: [`${host}:${ports.kafka}`] },
      databases: {
        order: databaseUrl(settings, "order"),
        inventory: databaseUrl(settings, "inventory"),
        payment: databaseUrl(settings, "payment"),
      },
      gateway: gatewayUrl,
      health,
    },
  };
}

async function answers(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(probeTimeoutMs) });
  await response.body?.cancel();
  return response.ok;
}
