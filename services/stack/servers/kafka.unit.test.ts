import { expect, test } from "bun:test";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf } from "../../kit/errors.ts";
import { type BrokerCount, readStackSettings } from "../settings.ts";
import { requireBrokersOfData } from "./kafka.ts";
import { brokerProperties } from "./kafka-properties.ts";

/** Why a start with `brokers` is refused on data with these folders; undefined if it is not. */
async function refusalOf(brokers: BrokerCount, ...folders: readonly string[]): Promise<string | undefined> {
  const dataFolder = await mkdtemp(join(tmpdir(), "brokers-"));
  try {
    for (const name of folders) await mkdir(join(dataFolder, name));
    requireBrokersOfData(readStackSettings({ STACK_DATA_DIR: dataFolder }, "/", brokers));
    return undefined;
  } catch (error) {
    return messageOf(error);
  } finally {
    await rm(dataFolder, { recursive: true });
  }
}

test("the number of brokers belongs to the data: another one is refused, with the number that it takes", async () => {
  expect(await refusalOf(3, "kafka")).toMatch(/belongs to one Kafka broker, .*Start with --brokers 1, /);
  expect(await refusalOf(1, "kafka", "kafka-2", "kafka-3")).toMatch(
    /belongs to 3 Kafka brokers, .*Start with --brokers 3, /,
  );
  expect(await refusalOf(1, "kafka")).toBeUndefined();
  expect(await refusalOf(3, "kafka", "kafka-2", "kafka-3")).toBeUndefined();
});

test("without data, or with what a kill left while it was made, any number of brokers can start", async () => {
  for (const brokers of [1, 3] as const) {
    expect(await refusalOf(brokers)).toBeUndefined();
    expect(await refusalOf(brokers, "kafka-2", "kafka.draft")).toBeUndefined();
  }
});

/** The settings of one broker by name. */
function propertiesOf(brokers: BrokerCount, number: number): Readonly<Record<string, string>> {
  const text = brokerProperties(readStackSettings({}, "/", brokers), { number, folder: "/data", listeners: [] });
  return Object.fromEntries(text.split("\n").map((line) => line.split(/=(.*)/)));
}

test("three brokers keep three copies of everything, also of Kafka's own topics, and need two of them", () => {
  const common = {
    "controller.quorum.voters": "1@127.0.0.1:19093,2@127.0.0.1:19193,3@127.0.0.1:19293",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
  };
  expect(propertiesOf(3, 1)).toMatchObject({ ...common, "node.id": "1" });
  expect(propertiesOf(3, 3)).toMatchObject({
    ...common,
    "node.id": "3",
    listeners: "PLAINTEXT://127.0.0.1:19292,CONTROLLER://127.0.0.1:19293",
    "advertised.listeners": "PLAINTEXT://127.0.0.1:19292",
  });
  expect(propertiesOf(1, 1)).toMatchObject({
    "controller.quorum.voters": "1@127.0.0.1:19093",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
  });
});
