/** How long an event takes from its commit until a consumer has it, beside the same time for a record produced directly. */
import { toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { consumeTopic } from "../../relay/kafka/consumer.ts";
import { openProducer } from "../../relay/kafka/producer.ts";
import { openHintSender } from "../../relay/outbox/hint.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { Quantiles } from "../k6/plan.ts";
import { quantilesOf } from "../k6/result.ts";
import type { BenchOutbox } from "./outbox.ts";
import { startRelayProcess } from "./relay-process.ts";

const eventsPerSecond = 100;
/** Relay and floor are measured in turn, in this many blocks each, so that other load on the machine affects both. */
const blocksCount = 4;
const warmUpSeconds = 1;
const sendTimeoutMs = 2_000;
const arrivalTimeoutMs = 20_000;
const pollMs = 20;

/** Sends one event; returns its id and the time at which the measurement begins. */
type SendEvent = () => Promise<{ readonly id: string; readonly startedMs: number }>;

/**
 * Measures milliseconds until a consumer in this process has the record: for `relay` from the end of the commit, for
 * `floor` from the start of a direct send.
 */
export async function measureLatency(
  outbox: BenchOutbox,
  { seconds, noteMemory }: { readonly seconds: number; readonly noteMemory: (megabytes: number) => void },
): Promise<{ readonly relay: Quantiles; readonly floor: Quantiles }> {
  const arrivals = new Map<string, number>();
  const relay = await startRelayProcess(outbox);
  const hints = openHintSender(outbox.service, [relay.hints]);
  const producer = await openProducer({ ...outbox.kafka, timeoutMs: sendTimeoutMs });
  const consumer = await noteArrivals(outbox, arrivals);
  const viaRelay: SendEvent = async () => {
    const id = await outbox.append();
    const startedMs = performance.now();
    hints.send();
    return { id, startedMs };
  };
  const directly: SendEvent = async () => {
    const id = Bun.randomUUIDv7();
    const startedMs = performance.now();
    await producer.send(outbox.topic, [directRecord(id)]);
    return { id, startedMs };
  };
  try {
    while (!consumer.isReady()) await sleep(pollMs);
    const relayMs: number[] = [];
    const floorMs: number[] = [];
    for (const send of [viaRelay, directly]) await measureBlock(send, arrivals, warmUpSeconds);
    for (let block = 0; block < blocksCount; block++) {
      relayMs.push(...(await measureBlock(viaRelay, arrivals, seconds / blocksCount)));
      floorMs.push(...(await measureBlock(directly, arrivals, seconds / blocksCount)));
    }
    noteMemory(await relay.memoryMaxMegabytes());
    return { relay: requireQuantiles(relayMs), floor: requireQuantiles(floorMs) };
  } finally {
    hints.close();
    await Promise.all([consumer.close(), producer.close(), relay.stop()]);
  }
}

/** Writes the arrival time of each event on the topic into `arrivals`, by event id. */
function noteArrivals({ kafka, topic }: BenchOutbox, arrivals: Map<string, number>) {
  return consumeTopic({
    ...kafka,
    groupId: topic,
    topic,
    from: "latest",
    commitOffsets: false,
    partitionsConcurrently: 12,
    batchSizeMax: 1_000,
    async onBatch(records) {
      const nowMs = performance.now();
      for (const { headers } of records) arrivals.set(String(headers?.ce_id), nowMs);
    },
    onCrash(error) {
      throw error;
    },
  });
}

/** Sends events at a constant rate, waits until all have arrived, and returns how long each took. */
async function measureBlock(
  send: SendEvent,
  arrivals: ReadonlyMap<string, number>,
  seconds: number,
): Promise<readonly number[]> {
  const begunMs = performance.now();
  const sends: ReturnType<SendEvent>[] = [];
  for (let number = 0; number < seconds * eventsPerSecond; number++) {
    await sleep(Math.max(0, begunMs + (number * 1_000) / eventsPerSecond - performance.now()));
    sends.push(send());
  }
  const sent = await Promise.all(sends);
  const deadlineMs = performance.now() + arrivalTimeoutMs;
  while (!sent.every(({ id }) => arrivals.has(id))) {
    if (performance.now() > deadlineMs) throw new Error("An event did not arrive.");
    await sleep(pollMs);
  }
  return sent.map(({ id, startedMs }) => (arrivals.get(id) ?? 0) - startedMs);
}

function directRecord(id: string) {
  const row = {
    id,
    aggregateId: id,
    type: "shop.order.v1.OrderCompleted",
    payload: JSON.stringify({ orderId: id }),
    headers: null,
    occurredAt: new Date(),
    seq: "1",
  };
  return toRecord(row, { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry });
}

function requireQuantiles(values: readonly number[]): Quantiles {
  const quantiles = quantilesOf(values);
  if (quantiles === undefined) throw new Error("No event was measured.");
  return quantiles;
}
