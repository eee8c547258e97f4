import { expect, test } from "bun:test";
import { Partitioners } from "kafkajs";
import { murmur2, partitionOf } from "./partitioner.ts";

// The values of Kafka's own test, UtilsTest.testMurmur2.
test.each([
  ["21", -973932308],
  ["foobar", -790332482],
  ["a-little-bit-long-string", -985981536],
  ["a-little-bit-longer-string", -1486304829],
  ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
  ["abc", 479470107],
])("murmur2 hashes %s as Kafka's Java clients do", (text, hash) => {
  expect(murmur2(Buffer.from(text))).toBe(hash);
});

test("partitionOf puts every key on the same partition as kafkajs's own partitioner", () => {
  const partitioner = Partitioners.DefaultPartitioner();
  for (const partitions of [1, 3, 12]) {
    const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => {
      return { partitionErrorCode: 0, partitionId, leader: 0, replicas: [0], isr: [0] };
    });
    for (let length = 0; length < 40; length++) {
      const key = `${Bun.randomUUIDv7()}é🛒`.slice(0, length);
      const message = { key, value: null };
      expect(partitionOf(key, partitions)).toBe(partitioner({ topic: "any", partitionMetadata, message }));
    }
  }
});
