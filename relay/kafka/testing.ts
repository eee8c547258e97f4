/** For tests: puts records on a topic as another client might, with anything that Kafka allows. */
import { CompressionTypes, type Message, type Producer, type ProducerConfig } from "kafkajs";
import { type KafkaOptions, kafkaClient } from "./client.ts";

/** A record of another client. Unlike `EventRecord` it may lack a key and a value, and its headers may be null. */
export interface RawRecord {
  readonly key?: Uint8Array | string | null;
  readonly value?: Uint8Array | string | null;
  readonly headers?: Readonly<Record<string, Uint8Array | string | null>>;
  readonly partition?: number;
  /** In milliseconds, decimal. */
  readonly timestamp?: string;
}

/** Sends records in one batch a partition. */
export async function produceRaw(
  kafka: KafkaOptions,
  topic: string,
  records: readonly RawRecord[],
  options: { readonly gzip?: boolean } = {},
): Promise<void> {
  await withProducer(kafka, {}, async (producer) => {
    const compression = options.gzip ? CompressionTypes.GZIP : CompressionTypes.None;
    await producer.send({ topic, messages: records.map(toMessage), compression });
  });
}

/** Sends records in a transaction, which leaves a marker behind them. Consumers do not get what is aborted. */
export async function produceInTransaction(
  kafka: KafkaOptions,
  topic: string,
  records: readonly RawRecord[],
  end: "commit" | "abort",
): Promise<void> {
  const config = { transactionalId: crypto.randomUUID(), idempotent: true, maxInFlightRequests: 1 };
  await withProducer(kafka, config, async (producer) => {
    const transaction = await producer.transaction();
    await transaction.send({ topic, messages: records.map(toMessage) });
    await transaction[end]();
  });
}

async function withProducer(kafka: KafkaOptions, config: ProducerConfig, work: (producer: Producer) => Promise<void>) {
  const producer = kafkaClient(kafka).producer({ allowAutoTopicCreation: false, ...config });
  await producer.connect();
  try {
    await work(producer);
  } finally {
    await producer.disconnect();
  }
}

function toMessage({ key = null, value = null, headers = {}, partition, timestamp }: RawRecord): Message {
  const bytes = (it: Uint8Array | string | null) => (it === null ? null : Buffer.from(it as Uint8Array));
  return {
    key: bytes(key),
    value: bytes(value),
    // kafkajs writes null headers, but its types do not know them.
    headers: Object.fromEntries(Object.entries(headers).map(([name, it]) => [name, bytes(it)])) as Record<
      string,
      Buffer
    >,
    ...(partition === undefined ? {} : { partition }),
    ...(timestamp === undefined ? {} : { timestamp }),
  };
}

const namesOfEveryObject = ["constructor", "toString", "__proto__"].map((name) => [name, "text"] as const);

/** Records of another client that are not events of this system, or only in part. 16 kinds, with these event types. */
export function oddRecords(type: string, event: RawRecord): readonly RawRecord[] {
  const { headers = {} } = event;
  const nulled = (name: string): RawRecord => ({ ...event, headers: { ...headers, [name]: null } });
  const garbage = Buffer.from([0xff, 0x00, 0x80, 0x27, 0x5c]);
  return [
    {},
    { key: "x", value: "hello" },
    { key: null, value: garbage, headers: { anything: null } },
    { value: garbage, headers: { ce_type: null } },
    { headers: { ce_type: type } },
    { key: null, value: garbage, headers: { ...headers, ce_id: null, ce_subject: null } },
    { key: garbage, value: null, headers: { ce_type: type, ce_id: "i".repeat(40), tracestate: null } },
    { key: "", value: "", headers: { ce_type: type, "": null } },
    { ...event, key: "k".repeat(300), value: garbage },
    { ...event, key: "another key" },
    { key: "\u{feff}bom", value: garbage, headers: Object.fromEntries([["ce_type", type], ...namesOfEveryObject]) },
    nulled("ce_id"),
    nulled("ce_type"),
    nulled("ce_time"),
    nulled("ce_source"),
    nulled("ce_sequence"),
  ];
}

/** Deletes the records of a partition below `offset`, as an operator does to get past some of them. */
export async function deleteRecords(
  kafka: KafkaOptions,
  topic: string,
  partition: number,
  offset: string,
): Promise<void> {
  const admin = kafkaClient(kafka).admin();
  await admin.connect();
  try {
    // Makes kafkajs load who leads the partitions.
    await admin.fetchTopicOffsets(topic);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset }] });
  } finally {
    await admin.disconnect();
  }
}
