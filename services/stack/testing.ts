/** For end-to-end tests: a whole stack as `npm start` runs it, and clients of every protocol. */
import { join } from "node:path";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { credentials, Client as GrpcClient, type ServiceError } from "@grpc/grpc-js";
import type { ServiceName } from "../../proto/event-table.ts";
import { type Order, Order_FailureReason, Order_Status } from "../../proto/gen/shop/order/v1/order_pb.ts";
import { OrderService, type PlaceOrderRequestSchema } from "../../proto/gen/shop/order/v1/order_service_pb.ts";
import type { KafkaOptions } from "../../relay/kafka/client.ts";
import { environment } from "../kit/config.ts";
import { type Database, openDatabase } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { byService } from "./services.ts";
import { readStackFile, type StackFile } from "./stack-file.ts";

const root = join(import.meta.dir, "../..");

/** A running stack. */
export interface TestStack {
  readonly dataFolder: string;
  /** The current stack file: process ids change with every restart. */
  read(): Promise<StackFile>;
  /** @throws Error if the process is not running. */
  pidOf(name: string): Promise<number>;
  /** Admin connections to the services' databases. */
  readonly databases: Readonly<Record<ServiceName, Database>>;
  readonly connect: Client<typeof OrderService>;
  readonly grpcWeb: Client<typeof OrderService>;
  /** The console output so far. */
  output(): string;
  stop(): Promise<void>;
}

/**
 * Starts a stack on the ports and the data folder that `npm test` set, and resolves when it is ready.
 * @param env added to the environment of `npm start` and its processes.
 */
export async function startStack(
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<TestStack> {
  const dataFolder = env.STACK_DATA_DIR ?? environment().STACK_DATA_DIR;
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
    async pidOf(name) {
      const pid = (await readStackFile(dataFolder)).processes[name];
      if (pid === undefined) throw new Error(`${name} is not running.`);
      return pid;
    },
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

/** Connects to a stack's brokers. */
export function kafkaOf(stack: StackFile): KafkaOptions {
  const brokers = stack.kafka.brokers.map((address) => {
    const [host = "", port = ""] = address.split(":");
    return { host, port: Number(port) };
  });
  return { brokers, clientId: "test", log: silentLogger };
}

/** Calls OrderService through grpc-js, as any gRPC client would. */
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

/** A request for one piece of a demo SKU, unless changed. */
export function orderRequest(
  change: { readonly sku?: string; readonly paymentMethod?: string; readonly requestId?: string } = {},
) {
  return {
    requestId: change.requestId ?? crypto.randomUUID(),
    lines: [{ sku: change.sku ?? "sku-0001", quantity: 1 }],
    paymentMethod: change.paymentMethod ?? "pm_ok",
  };
}

/** Watches an order until it is final. Returns every state seen. */
export async function watchToEnd(client: Client<typeof OrderService>, orderId: string): Promise<Order[]> {
  const orders: Order[] = [];
  for await (const { event } of client.watchOrder({ orderId })) if (event.case === "order") orders.push(event.value);
  return orders;
}

/** For example `COMPLETED` or `FAILED/OUT_OF_STOCK`. */
export function outcomeOf(order: Pick<Order, "status" | "failureReason">): string {
  const status = Order_Status[order.status] ?? "?";
  return order.failureReason === 0 ? status : `${status}/${Order_FailureReason[order.failureReason]}`;
}
