/** Checks all sources and the broker when the relay starts, so that a problem with a source is named at once. */
import { withDeadline } from "../../services/kit/deadline.ts";
import type { KafkaOptions } from "../kafka/client.ts";
import { isBrokerListening } from "../kafka/probe.ts";
import type { SourceConfig } from "./config.ts";
import { checkTables, checkTopics, type SourceCheck, type SourceProblem } from "./source-check.ts";

/** A server that takes longer counts as unchecked. */
const checkTimeoutMs = 5_000;

/** A server that could not be checked at start. */
export interface UncheckedServer {
  /** `broker`, or `source` and the name of the source whose database it is. */
  readonly name: string;
  /** Why it could not be checked. */
  readonly error: Error;
  /** Checks it again. Never throws. */
  check(): Promise<SourceCheck>;
}

/** Checks all servers at the same time. Takes 5 s at most and never throws. */
export async function checkAtStart(
  sources: readonly SourceConfig[],
  kafka: KafkaOptions,
): Promise<{ readonly problems: readonly SourceProblem[]; readonly unchecked: readonly UncheckedServer[] }> {
  const checks = [
    { name: "broker", check: () => checkBroker(sources, kafka) },
    ...sources.map((source) => ({ name: `source ${source.name}`, check: () => checkTables(source) })),
  ];
  const results = await Promise.all(checks.map(async (it) => ({ ...it, ...(await withinTime(it.check())) })));
  return {
    problems: results.flatMap(({ problems }) => problems),
    unchecked: results.flatMap(({ name, check, error }) => (error === undefined ? [] : [{ name, check, error }])),
  };
}

async function checkBroker(sources: readonly SourceConfig[], kafka: KafkaOptions): Promise<SourceCheck> {
  if (await isBrokerListening(kafka.brokers)) return await checkTopics(sources, kafka);
  return { problems: [], error: new Error("No broker of KAFKA_BROKERS accepts connections.") };
}

async function withinTime(checking: Promise<SourceCheck>): Promise<SourceCheck> {
  const late = () => new Error(`No answer within ${checkTimeoutMs} ms.`);
  return await withDeadline(checking, checkTimeoutMs, late).catch((error: Error) => ({ problems: [], error }));
}
