/**
 * For end-to-end tests: a whole stack as `npm start` runs it, clients of every protocol, and the books of all services.
 * For integration tests: a broker that only one of them uses, and may do anything to.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { credentials, Client as GrpcClient, type ServiceError } from "@grpc/grpc-js";
import type { ServiceName } from "../../proto/event-table.ts";
import { type Order, Order_FailureReason, Order_Status } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService, type PlaceOrderRequestSchema } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { environment, type HostPort } from "../kit/config.ts";
import { type Database, openDatabase } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { freePort } from "../kit/testing.ts";
import type { LedgerEntry } from "./fake-gateway.ts";
import { ensurePrograms } from "./servers/downloads.ts";
import { prepareKafka } from "./servers/kafka.ts";
import { byService, serviceNames } from "./services.ts";
import { readStackSettings } from "./settings.ts";
import { readStackFile, type StackFile } from "./stack-file.ts";
import { Supervisor } from "./supervisor.ts";

const root = join(import.meta.dir, "../..");

/** A running stack. */
export interface TestStack {
  readonly dataFolder: string;
  /** What runs now: the process ids change with every restart. */
  read(): Promise<StackFile>;
  /** Admin connections to the services' databases. */
  readonly databases: Readonly<Record<ServiceName, Database>>;
  readonly connect: Client<typeof OrderService>;
  readonly grpcWeb: Client<typeof OrderService>;
  /** What the console has shown so far. */
  output(): string;
  stop(): Promise<void>;
}

/**
 * Starts a stack on the tests' ports and data (set by `npm test`), and resolves when it is ready.
 * @param env what its processes are told beside that.
 */
export async function startStack(
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<TestStack> {
  const dataFolder = environment().STACK_DATA_DIR;
  if (dataFolder === undefined) throw new Error("Run the end-to-end tests with: npm test -- e2e");
  const child = Bun.spawn([process.execPath, "services/stack/start.ts", "--no-samples", ...args], {
    cwd: root,
    env: { ...environment(), ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  let shown = "";
  const ready = Promise.withResolvers<void>();
  const reading = (async () => {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      shown += chunk;
      if (/Everything is ready/.test(shown)) ready.resolve();
    }
    ready.reject(new Error(`The stack ended before it was ready:\n${shown}`));
  })();
  await ready.promise;
  const stack = await readStackFile(dataFolder);
  const databases = byService((name) => openDatabase({ url: stack.databases[name], connectionsMax: 2 }));
  return {
    dataFolder,
    read: () => readStackFile(dataFolder),
    databases,
    connect: createClient(OrderService, createConnectTransport({ baseUrl: stack.order.http })),
    grpcWeb: createClient(OrderService, createGrpcWebTransport({ baseUrl: stack.order.http })),
    output: () => shown,
    async stop() {
      await Promise.all(Object.values(databases).map((database) => database.close()));
      child.kill("SIGTERM");
      await child.exited;
      await reading.catch(() => undefined);
    },
  };
}

/** How to reach a stack's broker. */
export function kafkaOf(stack: StackFile): KafkaOptions {
  const [host = "", port = ""] = (stack.kafka.brokers[0] ?? "").split(":");
  return { brokers: [{ host, port: Number(port) }], clientId: "test", log: silentLogger };
}

/** Calls OrderService through grpc-js, the way any gRPC client would. */
export function grpcClient(stack: StackFile) {
  const client = new GrpcClient(new URL(stack.order.grpc).host, credentials.createInsecure());
  const { placeOrder, watchOrder } = OrderService.method;
  return {
    placeOrder(request: MessageInitShape<typeof PlaceOrderRequestSchema>) {
      return new Promise<{ orderId: string; status: Order_Status }>((resolve, reject) => {
        client.makeUnaryRequest(
          `/${OrderService.typeName}/${placeOrder.name}`,
          (message) => Buffer.from(toBinary(placeOrder.input, message)),
          (bytes) => fromBinary(placeOrder.output, bytes),
          create(placeOrder.input, request),
          (error: ServiceError | null, response) => {
            if (error !== null || response === undefined) reject(error);
            else resolve(response);
          },
        );
      });
    },
    async watchOrder(orderId: string): Promise<Order[]> {
      const stream = client.makeServerStreamRequest(
        `/${OrderService.typeName}/${watchOrder.name}`,
        (message) => Buffer.from(toBinary(watchOrder.input, message)),
        (bytes) => fromBinary(watchOrder.output, bytes),
        create(watchOrder.input, { orderId }),
      );
      const orders: Order[] = [];
      for await (const { event } of stream) if (event.case === "order") orders.push(event.value);
      return orders;
    },
    close: () => client.close(),
  };
}

/** A request for one piece of a demo SKU. */
export function orderRequest(
  change: { readonly sku?: string; readonly paymentMethod?: string; readonly requestId?: string } = {},
) {
  return {
    requestId: change.requestId ?? crypto.randomUUID(),
    lines: [{ sku: change.sku ?? "sku-0001", quantity: 1 }],
    paymentMethod: change.paymentMethod ?? "pm_ok",
  };
}

/** Watches an order to its end. */
export async function watchToEnd(client: Client<typeof OrderService>, orderId: string): Promise<Order[]> {
  const orders: Order[] = [];
  for await (const { event } of client.watchOrder({ orderId })) if (event.case === "order") orders.push(event.value);
  return orders;
}

/** `COMPLETED`, or `FAILED/OUT_OF_STOCK` and so on. */
export function outcomeOf(order: Pick<Order, "status" | "failureReason">): string {
  const status = Order_Status[order.status] ?? "?";
  return order.failureReason === 0 ? status : `${status}/${Order_FailureReason[order.failureReason]}`;
}

/**
 * What is wrong with stock and money, across all services and the gateway's ledger; empty when all adds up. For a stack
 * at rest: every order final, every event handled.
 */
export async function findDiscrepancies(stack: TestStack): Promise<readonly string[]> {
  const found: string[] = [];
  const note = (problem: string, rows: readonly unknown[]) => {
    for (const row of rows) found.push(`${problem}: ${JSON.stringify(row)}`);
  };
  const { order, inventory } = stack.databases;

  note(
    "stock does not add up",
    await inventory.query(
      "SELECT * FROM stock WHERE initial <> available + held + sold OR available < 0 OR held < 0 OR sold < 0",
    ),
  );
  const orders = await order.query<{ order_id: string; status: string; lines_json: string; total_minor: number }>(
    "SELECT order_id, status, lines_json, total_minor FROM orders",
  );
  const reservations = await inventory.query<{ order_id: string; status: string }>(
    "SELECT order_id, status FROM reservation",
  );
  const expectedSold = new Map<string, number>();
  const reservationOf = new Map(reservations.map((row) => [row.order_id, row.status]));
  for (const row of orders) {
    const reservation = reservationOf.get(row.order_id);
    if (row.status === "COMPLETED") {
      if (reservation !== "SOLD") note("completed and not sold", [{ ...row, reservation }]);
      for (const line of JSON.parse(row.lines_json) as { sku: string; quantity: number }[]) {
        expectedSold.set(line.sku, (expectedSold.get(line.sku) ?? 0) + line.quantity);
      }
    } else if (row.status === "FAILED") {
      if (reservation === "HELD" || reservation === "SOLD") note("failed and not released", [{ ...row, reservation }]);
    } else {
      note("not final", [row]);
    }
  }
  const stock = await inventory.query<{ sku: string; held: number; sold: number }>(
    "SELECT sku, held, sold FROM stock WHERE held > 0 OR sold > 0",
  );
  for (const row of stock) {
    if (row.held !== 0) note("held for nobody", [row]);
    if (row.sold !== (expectedSold.get(row.sku) ?? 0)) {
      note("sold in stock and in orders differ", [{ ...row, orders: expectedSold.get(row.sku) ?? 0 }]);
    }
  }
  if ([...expectedSold.keys()].some((sku) => !stock.some((row) => row.sku === sku)))
    note("sold nowhere", [[...expectedSold]]);

  const live = new Map<string, LedgerEntry[]>();
  for (const entry of await readLedger(await stack.read())) {
    if (entry.kind === "AUTHORIZATION" && entry.status === "AUTHORIZED")
      live.set(entry.orderId, [...(live.get(entry.orderId) ?? []), entry]);
  }
  for (const row of orders) {
    const entries = live.get(row.order_id) ?? [];
    if (row.status === "COMPLETED" && (entries.length !== 1 || entries[0]?.amountMinor !== String(row.total_minor))) {
      note("completed and not authorised once, at its total", [{ ...row, entries }]);
    }
    if (row.status !== "COMPLETED" && entries.length > 0) note("failed and charged", [{ ...row, entries }]);
  }
  const known = new Set(orders.map((row) => row.order_id));
  note(
    "charged for an order that nobody placed",
    [...live.keys()].filter((orderId) => !known.has(orderId)),
  );

  for (const service of serviceNames) {
    const table = `${service}_outbox_event`;
    note(
      `${service}: not published`,
      await stack.databases[service].query(
        `SELECT id, type, status, retry_count FROM ${table} WHERE status <> 'PUBLISHED' OR retry_count > 0`,
      ),
    );
  }
  note(
    "more than one final event",
    await order.query(
      `SELECT aggregate_id, COUNT(*) AS events FROM order_outbox_event
        WHERE type IN ('shop.order.v1.OrderCompleted', 'shop.order.v1.OrderFailed') GROUP BY aggregate_id HAVING events > 1`,
    ),
  );
  return found;
}

/** The gateway's own ledger, whole. */
export async function readLedger(stack: StackFile): Promise<readonly LedgerEntry[]> {
  const entries: LedgerEntry[] = [];
  for (let after: number | null = 0; after !== null; ) {
    const response: Response = await fetch(`${stack.gateway}/v1/ledger?after=${after}&limit=1000`);
    const page = (await response.json()) as { entries: LedgerEntry[]; nextAfter: number | null };
    entries.push(...page.entries);
    after = page.nextAfter;
  }
  return entries;
}

/** A broker of one test file's own. Whatever ends it, it is started again on the same port with the same records. */
export interface TestKafka {
  readonly address: HostPort;
  /** For signals. It changes with every start. */
  pid(): number;
  stop(): Promise<void>;
}

/** Starts an empty broker beside the one that `npm test` started for all. */
export async function startTestKafka(): Promise<TestKafka> {
  const env = environment();
  if (env.TEST_DATA_DIR === undefined) throw new Error("Run the integration tests with: npm test -- PART_OF_A_PATH");
  const dataFolder = join(env.TEST_DATA_DIR, "own");
  await rm(dataFolder, { recursive: true, force: true });
  const [kafkaPort, controllerPort] = [String(await freePort()), String(await freePort())];
  const ports = { KAFKA_PORT: kafkaPort, KAFKA_CONTROLLER_PORT: controllerPort };
  const settings = readStackSettings({ ...env, ...ports, STACK_DATA_DIR: dataFolder }, root);
  const supervisor = new Supervisor({
    root,
    // Left behind by a kill -9, it is found by the next run, as the common servers are.
    dataFolder: env.TEST_DATA_DIR,
    logFolder: join(dataFolder, "logs"),
    onChange: () => undefined,
  });
  await supervisor.start(await prepareKafka(settings, await ensurePrograms(settings.cacheFolder)));
  return {
    address: { host: settings.host, port: settings.ports.kafka },
    pid() {
      const pid = supervisor.processIds().kafka;
      if (pid === undefined) throw new Error("The broker is not running.");
      return pid;
    },
    stop: () => supervisor.stopAll(),
  };
}
