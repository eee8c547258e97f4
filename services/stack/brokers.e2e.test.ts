/** Three Kafka brokers, as `npm start -- --brokers 3` runs them. What breaks with several brokers is in load/chaos. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { sagaTopic } from "../../proto/event-table.ts";
import { type KafkaAdmin, openAdmin } from "../../relay/kafka/admin.ts";
import { environment } from "../kit/config.ts";
import { eventually } from "../kit/testing.ts";
import { deadLetterTopic } from "./provision.ts";
import { runCommand } from "./run-command.ts";
import { serviceNames } from "./services.ts";
import { kafkaOf, orderRequest, outcomeOf, startStack, type TestStack, watchToEnd } from "./testing.ts";

/** A folder of its own: data of three brokers cannot be used by the other tests' stacks. */
const dataFolder = join(environment().STACK_DATA_DIR ?? "", "three-brokers");
const names = ["kafka", "kafka-2", "kafka-3"];
let stack: TestStack;
let admin: KafkaAdmin;

beforeAll(async () => {
  await rm(dataFolder, { recursive: true, force: true });
  stack = await startStack(["--brokers", "3"], { STACK_DATA_DIR: dataFolder });
  admin = await openAdmin(kafkaOf(await stack.read()));
}, 120_000);
afterAll(async () => {
  await admin?.close();
  await stack?.stop();
}, 60_000);

async function brokersOf(processName: string): Promise<readonly string[]> {
  const text = await readFile(`/proc/${await stack.pidOf(processName)}/environ`, "utf8");
  const variable = text.split("\0").find((it) => it.startsWith("KAFKA_BROKERS="));
  return variable?.slice("KAFKA_BROKERS=".length).split(",") ?? [];
}

test("every process knows all three brokers, and an order completes", async () => {
  const { kafka, processes } = await stack.read();
  expect(kafka.brokers).toHaveLength(3);
  expect(Object.keys(processes)).toEqual(expect.arrayContaining(names));
  for (const name of [...serviceNames, "relay"]) expect(await brokersOf(name)).toEqual([...kafka.brokers]);
  const { orderId } = await stack.connect.placeOrder(orderRequest());
  expect((await watchToEnd(stack.connect, orderId)).map(outcomeOf).at(-1)).toBe("COMPLETED");
}, 60_000);

test("every topic, Kafka's own too, has its copies in sync on all three brokers, and each broker leads some", async () => {
  expect((await admin.listBrokers()).map(({ id }) => id).sort()).toEqual([1, 2, 3]);
  for (const topic of [sagaTopic, deadLetterTopic, "__consumer_offsets"]) {
    await eventually(async () => {
      const replicas = await admin.listReplicas(topic);
      expect(replicas.length).toBeGreaterThan(0);
      for (const { insync } of replicas) expect([...insync].sort()).toEqual([1, 2, 3]);
      expect(new Set(replicas.map(({ leader }) => leader))).toEqual(new Set([1, 2, 3]));
    }, 20_000);
  }
}, 90_000);

test("after a stop, another number of brokers is refused on the same data, and the same number goes on with it", async () => {
  const { orderId } = await stack.connect.placeOrder(orderRequest());
  await admin.close();
  const stoppingMs = performance.now();
  await stack.stop();
  expect(performance.now() - stoppingMs).toBeLessThan(20_000);

  const { exitCode, stderr } = await runCommand([process.execPath, "services/stack/start.ts", "--exit"], {
    folder: join(import.meta.dir, "../.."),
    env: { STACK_DATA_DIR: dataFolder },
  });
  expect(stderr).toMatch(/belongs to 3 Kafka brokers, .*Start with --brokers 3/);
  expect(exitCode).toBe(1);

  stack = await startStack(["--brokers", "3"], { STACK_DATA_DIR: dataFolder });
  admin = await openAdmin(kafkaOf(await stack.read()));
  expect((await watchToEnd(stack.connect, orderId)).map(outcomeOf).at(-1)).toBe("COMPLETED");
}, 180_000);
