/** The events of a run. */
import { create } from "@bufbuild/protobuf";
import { toOutboxRow, toRecord } from "../../../proto/envelope.ts";
import { eventRegistry } from "../../../proto/event-table.ts";
import { OrderCompletedSchema } from "../../../proto/gen/shop/order/v1/events_pb.ts";
import { openProducer } from "../../../relay/kafka/producer.ts";
import { testKafka } from "../../../relay/testing.ts";
import { type Database, insertRows } from "../../../services/kit/database.ts";
import { eventType, outboxTable } from "../processes.ts";

const keysPerRun = 6;

/** Appends events of several keys to the outbox. Returns their keys by id. */
export async function appendEvents(database: Database, count: number): Promise<ReadonlyMap<string, string>> {
  const run = Bun.randomUUIDv7();
  const events = new Map(
    Array.from({ length: count }, (_, index) => [Bun.randomUUIDv7(), `${run}-${index % keysPerRun}`] as const),
  );
  await insertRows(
    database,
    outboxTable,
    ["id", "aggregate_id", "type", "payload", "headers"],
    [...events].map(([id, key]) => [id, key, eventType, JSON.stringify({ orderId: key }), "{}"]),
  );
  return events;
}

/** Sends events of several keys to the topic, as the relay does. Returns their keys by id. */
export async function produceEvents(topic: string, count: number): Promise<ReadonlyMap<string, string>> {
  const events = new Map(
    Array.from({ length: count }, (_, index) => [Bun.randomUUIDv7(), `${topic}-${index % keysPerRun}`] as const),
  );
  const records = [...events].map(([id, orderId], index) => {
    const message = create(OrderCompletedSchema, { orderId });
    const row = toOutboxRow({ id, aggregateId: orderId, message, headers: {} }, eventRegistry);
    return toRecord(
      { ...row, occurredAt: new Date(), seq: String(index + 1) },
      { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry },
    );
  });
  const producer = await openProducer({ ...testKafka(), timeoutMs: 5_000 });
  await producer.send(topic, records);
  await producer.close();
  return events;
}
