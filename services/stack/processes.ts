import { join } from "node:path";
import { type ServiceName, sagaTopic } from "../../proto/event-table.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import { byService, type ServiceDefinition, schemaName, serviceNames, services } from "./services.ts";
import {
  brokerAddresses,
  databaseUrl,
  type Instances,
  instanceName,
  instancePort,
  numbersOf,
  type StackSettings,
} from "./settings.ts";
import type { OrderEndpoints, StackFile } from "./stack-file.ts";
import type { ProcessSpec } from "./supervisor.ts";

const probeTimeoutMs = 2_000;

/**
 * Runtime settings of every process of ours. On two cores, JavaScriptCore's background threads compete with the work:
 * without its third compiler tier and its concurrent collector, an order costs a fifth less CPU at 30 orders a second.
 */
export const runtimeEnvironment = {
  BUN_JSC_useConcurrentGC: "0",
  BUN_JSC_useFTLJIT: "0",
  // The allocator's thread keeps looking for pages to give back, which is a quarter of the CPU of an idle relay.
  MIMALLOC_PURGE_HOLES_MIN_INTERVAL: "10000",
};

/**
 * A relay allocates much and keeps little, and by default the heap grows with the machine's memory. If JavaScriptCore
 * believes that this is 1 GiB, draining a backlog takes less than 120 MB instead of 180, for a quarter more CPU.
 */
export const relayRuntimeEnvironment = { ...runtimeEnvironment, BUN_JSC_forceRAMSize: String(1_024 ** 3) };

/** How to run our own processes: every instance of every service, the relays and the fake gateway. */
export interface ProcessPlan {
  readonly gateway: ProcessSpec;
  readonly others: readonly ProcessSpec[];
  /** The stack file without the process ids. */
  readonly stackFile: Omit<StackFile, "processes">;
}

/** Plans all processes. Each gets its whole configuration by its environment. */
export function planProcesses(settings: StackSettings, instances: Instances): ProcessPlan {
  const others = [
    ...serviceNames.flatMap((name) =>
      numbersOf(instances[name]).map((number) => planService(settings, instances, name, number)),
    ),
    ...numbersOf(instances.relay).map((number) => planRelay(settings, number)),
  ];
  return {
    gateway: planGateway(settings),
    others: others.map(({ spec }) => spec),
    stackFile: {
      order: orderEndpoints(settings, 1),
      ...Object.fromEntries(
        numbersOf(instances.order)
          .slice(1)
          .map((number) => [instanceName("order", number), orderEndpoints(settings, number)]),
      ),
      kafka: { brokers: brokerList(settings) },
      databases: byService((name) => databaseUrl(settings, name)),
      gateway: gatewayUrl(settings),
      health: {
        gateway: gatewayUrl(settings),
        ...Object.fromEntries(others.map(({ spec, healthUrl }) => [spec.name, healthUrl])),
      },
    },
  };
}

/** A process with a private port for health and metrics. */
interface PlannedProcess {
  readonly spec: ProcessSpec;
  readonly healthUrl: string;
}

function planService(settings: StackSettings, instances: Instances, name: ServiceName, number: number): PlannedProcess {
  const { host, ports, servicePorts } = settings;
  const { environment }: ServiceDefinition = services[name];
  const hints = numbersOf(instances.relay).map((relay) => `${host}:${instancePort(ports.relayHint, relay)}`);
  return planInstance(settings, {
    name: instanceName(name, number),
    stage: "service",
    program: `services/${name}/main.ts`,
    healthPort: instancePort(servicePorts[name].health, number),
    env: {
      DATABASE_URL: databaseUrl(settings, name, schemaName(name)),
      RELAY_HINTS: hints.join(","),
      ...Object.fromEntries(
        Object.entries(servicePorts[name]).map(([port, first]) => [
          `${port.toUpperCase()}_PORT`,
          String(instancePort(first, number)),
        ]),
      ),
      ...environment?.({ gatewayUrl: gatewayUrl(settings) }),
    },
  });
}

function planRelay(settings: StackSettings, number: number): PlannedProcess {
  const sources = serviceNames.map((name) => ({
    name,
    databaseUrl: databaseUrl(settings, name, "shop_relay"),
    outboxTable: outboxTableName(name),
    archiveTable: outboxArchiveTableName(name),
    topic: sagaTopic,
    encoding: "protobuf",
  }));
  return planInstance(settings, {
    name: instanceName("relay", number),
    stage: "relay",
    program: "relay/main.ts",
    healthPort: instancePort(settings.ports.relayHealth, number),
    env: {
      ...relayRuntimeEnvironment,
      RELAY_HINT_PORT: String(instancePort(settings.ports.relayHint, number)),
      RELAY_SOURCES: JSON.stringify(sources),
      RELAY_DESCRIPTOR_SET: join(settings.root, "proto/gen/descriptors.binpb"),
    },
  });
}

function planInstance(
  settings: StackSettings,
  {
    name,
    stage,
    program,
    healthPort,
    env,
  }: Pick<ProcessSpec, "name" | "stage" | "env"> & {
    readonly program: string;
    readonly healthPort: number;
  },
): PlannedProcess {
  const { host, logLevel } = settings;
  const healthUrl = `http://${host}:${healthPort}`;
  const spec: ProcessSpec = {
    name,
    stage,
    command: [process.execPath, program],
    env: {
      ...runtimeEnvironment,
      HOST: host,
      LOG_LEVEL: logLevel,
      KAFKA_BROKERS: brokerList(settings).join(","),
      INSTANCE: name,
      HEALTH_PORT: String(healthPort),
      ...env,
    },
    isReady: () => answers(`${healthUrl}/readyz`),
  };
  return { spec, healthUrl };
}

function planGateway(settings: StackSettings): ProcessSpec {
  return {
    name: "gateway",
    stage: "gateway",
    command: [process.execPath, "services/stack/fake-gateway.ts"],
    env: {
      ...runtimeEnvironment,
      HOST: settings.host,
      GATEWAY_PORT: String(settings.ports.gateway),
      GATEWAY_LEDGER: join(settings.dataFolder, "gateway/ledger.sqlite"),
    },
    isReady: () => answers(`${gatewayUrl(settings)}/livez`),
  };
}

function gatewayUrl({ host, ports }: StackSettings): string {
  return `http://${host}:${ports.gateway}`;
}

function orderEndpoints({ host, servicePorts }: StackSettings, number: number): OrderEndpoints {
  const { http, grpc } = servicePorts.order;
  return {
    http: `http://${host}:${instancePort(http, number)}`,
    grpc: `http://${host}:${instancePort(grpc, number)}`,
  };
}

function brokerList(settings: StackSettings): readonly string[] {
  return brokerAddresses(settings).map(({ host, port }) => `${host}:${port}`);
}

async function answers(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(probeTimeoutMs) });
  await response.body?.cancel();
  return response.ok;
}
