import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { silentLogger } from "../../services/kit/log.ts";
import { eventually } from "../../services/kit/testing.ts";
import { createTestTopic, keyOf, testKafka } from "../testing.ts";
import { openAdmin } from "./admin.ts";
import { consumeTopic, type TopicConsumer, type TopicConsumerOptions } from "./consumer.ts";
import { partitionOf } from "./partitioner.ts";
import { openProducer, type RecordProducer } from "./producer.ts";

test("a broker that takes connections and answers nothing keeps neither a producer nor a socket", async () => {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    sockets.add(socket);
    // What it reads it leaves unanswered.
    socket.resume();
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("The server listens on no port.");
    const brokers = [{ host: "127.0.0.1", port: address.port }];
    await expect(openProducer({ brokers, clientId: "test", log: silentLogger, timeoutMs: 500 })).rejects.toThrow(
      "Connecting to the broker took longer than 500 ms",
    );
    expect(connections).toBeGreaterThan(0);
    await eventually(() => expect(sockets.size).toBe(0));
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

describe("records that nobody waits for", () => {
  const partitions = 2;
  let topic: string;
  let group: string;
  let producer: RecordProducer;
  let consumers: TopicConsumer[] = [];
  /** What was handled, batch by batch. */
  let batches: string[][];
  /** What the next batches fail with. */
  let failures: Error[];

  beforeEach(async () => {
    topic = await createTestTopic(partitions);
    group = `test-${crypto.randomUUID()}`;
    producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
    batches = [];
    failures = [];
  });
  afterEach(async () => {
    await Promise.all([producer.close(), ...consumers.map((consumer) => consumer.close())]);
    consumers = [];
  });

  /** A member of the group. */
  async function join(
    options: Pick<TopicConsumerOptions, "onBatch"> & Partial<Pick<TopicConsumerOptions, "waitMaxMs" | "onAssigned">>,
  ) {
    const consumer = await consumeTopic({
      ...testKafka(),
      groupId: group,
      topic,
      from: "earliest",
      commitOffsets: true,
      partitionsConcurrently: partitions,
      batchSizeMax: 3,
      mayWait: (record) => keyOf(record).startsWith("later"),
      onCrash: (error) => {
        throw error;
      },
      ...options,
    });
    consumers.push(consumer);
    return consumer;
  }

  const consume = (waitMaxMs: number) =>
    join({
      waitMaxMs,
      async onBatch(records) {
        const failure = failures.shift();
        if (failure !== undefined) throw failure;
        batches.push(records.map(keyOf));
      },
    });

  /** A key that goes to a partition, found by trying. */
  const keyOn = (partition: number, name: string) => {
    for (let n = 0; ; n++) if (partitionOf(`${name}-${n}`, partitions) === partition) return `${name}-${n}`;
  };
  const [later1, later2, later3, later4, now] = ["later1", "later2", "later3", "later4", "now"].map((name) =>
    keyOn(0, name),
  ) as [string, string, string, string, string];
  const marker = keyOn(1, "marker");
  const produce = async (...keys: readonly string[]) => {
    for (const key of keys) await producer.send(topic, [{ key, value: new Uint8Array([1]), headers: {} }]);
  };
  const committed = async (partition: number) => {
    const admin = await openAdmin(testKafka());
    const offsets = await admin.committedOffsets(group, topic).finally(admin.close);
    return Number(offsets.find((it) => it.partition === partition)?.offset);
  };

  test("go with the next other one of their partition, in order", async () => {
    await consume(60_000);
    // Read after the others, and handled: so they were read and left waiting.
    await produce(later1, later2, marker);
    await eventually(() => expect(batches).toEqual([[marker]]), 20_000);
    await eventually(async () => expect(await committed(1)).toBe(1));
    expect(await committed(0)).toBeLessThan(1);
    await produce(now);
    await eventually(() => expect(batches).toEqual([[marker], [later1, later2, now]]));
    await eventually(async () => expect(await committed(0)).toBe(3));
  });

  test("are handled by themselves after a while, at the second try if need be, or when they are as many as fit", async () => {
    failures = [new Error("the database is away")];
    await consume(50);
    await produce(later1);
    await eventually(() => expect(batches).toEqual([[later1]]), 20_000);
    expect(failures).toEqual([]);
    await eventually(async () => expect(await committed(0)).toBe(1));
    await Promise.all(consumers.splice(0).map((consumer) => consumer.close()));
    batches = [];
    await consume(60_000);
    await produce(later1, later2, later3);
    await produce(later4);
    await eventually(() => expect(batches.flat()).toEqual([later1, later2, later3, later4]), 20_000);
  });

  test("come again where they were read and not handled: to the next member, and after a failure", async () => {
    const consumer = await consume(60_000);
    await produce(later1, marker);
    await eventually(() => expect(batches).toEqual([[marker]]), 20_000);
    await consumer.close();
    consumers = [];
    batches = [];
    await consume(60_000);
    await produce(marker);
    await eventually(() => expect(batches).toEqual([[marker]]), 20_000);
    // After a failure kafkajs goes on where it was told that a batch ended.
    failures = [new Error("the database is away")];
    await produce(now);
    await eventually(() => expect(batches).toEqual([[marker], [later1, now]]), 20_000);
    expect(failures).toEqual([]);
    await eventually(async () => expect(await committed(0)).toBe(2));
  });

  test("hold up no other member that joins, however long their handling takes, and stay in order", async () => {
    const order: string[] = [];
    const started = Promise.withResolvers<void>();
    const member = (name: string, isAway: boolean) =>
      join({
        waitMaxMs: 10,
        onAssigned: () => order.push(`${name} joined`),
        async onBatch(records, signal) {
          if (isAway) {
            started.resolve();
            // As the inbox tries again and again, until it is told to stop.
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
            order.push(`${name} let go`);
            isAway = false;
            throw signal.reason;
          }
          batches.push(records.map(keyOf));
        },
      });
    await member("first", true);
    await produce(later1);
    await started.promise;
    // Waits behind them.
    await produce(now);
    await member("second", false);
    await eventually(() => expect(order).toContain("second joined"), 20_000);
    expect(order.slice(0, 3)).toEqual(["first joined", "first let go", expect.stringMatching(/joined$/)]);
    await eventually(() => expect([...new Set(batches.flat())]).toEqual([later1, now]), 20_000);
    await eventually(async () => expect(await committed(0)).toBe(2));
  });
});
