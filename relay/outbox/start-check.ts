/** Checks all sources and the broker when the relay starts, so that a faulty configuration is named at once. */
import { withDeadline } from "../../services/kit/deadline.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import { isBrokerListening } from "../kafka/probe.ts";
import type { SourceConfig } from "./config.ts";
import { checkTables, checkTopics, type SourceCheck, type SourceFault } from "./source-check.ts";

/** A server that takes longer counts as away. */
const checkTimeoutMs = 5_000;

/** A server that did not answer at start, so that its part is still unchecked. */
export interface Unchecked {
  /** The broker, or a source. */
  readonly what: string;
  readonly away: Error;
  check(): Promise<SourceCheck>;
}

/** Asks all servers at the same time. Takes 5 s at most and never throws. */
export async function checkAtStart(
  sources: readonly SourceConfig[],
  kafka: KafkaOptions,
): Promise<{ readonly faults: readonly SourceFault[]; readonly unchecked: readonly Unchecked[] }> {
  const checks = [
    { what: "broker", check: () => checkBroker(sources, kafka) },
    ...sources.map((source) => ({ what: `source ${source.name}`, check: () => checkTables(source) })),
  ];
  const results = await Promise.all(checks.map(async (it) => ({ ...it, ...(await withinTime(it.check())) })));
  return {
    faults: results.flatMap(({ faults }) => faults),
    unchecked: results.flatMap(({ what, check, away }) => (away === undefined ? [] : [{ what, check, away }])),
  };
}

async function checkBroker(sources: readonly SourceConfig[], kafka: KafkaOptions): Promise<SourceCheck> {
  if (await isBrokerListening(kafka.brokers)) return await checkTopics(sources, kafka);
  return { faults: [], away: new Error("No broker of KAFKA_BROKERS accepts connections.") };
}

async function withinTime(checking: Promise<SourceCheck>): Promise<SourceCheck> {
  const late = () => new Error(`No answer within ${checkTimeoutMs} ms.`);
  return await withDeadline(checking, checkTimeoutMs, late).catch((away: Error) => ({ faults: [], away }));
}
