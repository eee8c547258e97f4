/** What is still unfinished or wrong after the faults have ended. Each finding is a line of text. A good run has none. */
import type { ServiceName } from "../../proto/event-table.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { AuditReport } from "../../services/ops/audit/report.ts";
import { findStuck } from "../../services/ops/stuck/stuck.ts";
import { deadLetterTopic } from "../../services/stack/provision.ts";
import { serviceNames } from "../../services/stack/services.ts";
import type { ChaosStack } from "./stack.ts";

const finishTimeoutMs = 180_000;
const pollMs = 100;

/**
 * Waits until every order is final, the outboxes are empty and the consumers have read the topic to its end. Returns what
 * is still unfinished after three minutes.
 */
export async function untilFinished(stack: ChaosStack): Promise<readonly string[]> {
  const deadlineMs = performance.now() + finishTimeoutMs;
  for (;;) {
    const unfinished = await findUnfinished(stack);
    if (unfinished.length === 0 || performance.now() > deadlineMs) return unfinished;
    await sleep(pollMs);
  }
}

async function findUnfinished({ sources, admin }: ChaosStack): Promise<readonly string[]> {
  const { databases, topic } = sources;
  const { total, orders } = await findStuck(databases, { olderThanMs: 0, limit: 5 });
  const unfinished = total === 0 ? [] : [`${total} orders are not final: ${JSON.stringify(orders)}`];
  for (const service of serviceNames) {
    const unpublished = await countEvents(sources, service, "status <> 'PUBLISHED'");
    if (unpublished > 0) unfinished.push(`${unpublished} events of ${service} are not published`);
    const committed = new Map((await admin.committedOffsets(service, topic)).map((it) => [it.partition, it.offset]));
    const behind = (await admin.endOffsets(topic)).filter(
      ({ partition, offset }) => offset !== "0" && committed.get(partition) !== offset,
    );
    if (behind.length > 0) unfinished.push(`${service} has not read ${behind.length} partitions to the end`);
  }
  return unfinished;
}

/** What the audit found; and dead letters or failed attempts of events, since no event of the run is faulty. */
export async function findBroken({ sources, admin }: ChaosStack, report: AuditReport): Promise<readonly string[]> {
  const broken = report.promises
    .filter((promise) => promise.broken > 0)
    .map(({ promise, title, broken: count, findings }) => {
      const [first] = findings;
      return `${promise} (${title}) is broken ${count} times; first ${first?.subject}: ${first?.what}`;
    });
  if (report.hinderedCount > 0) {
    broken.push(`${report.hinderedCount} orders wait for an operator: ${report.hindered[0]?.why}`);
  }
  if (report.unsettledCount > 0) broken.push(`${report.unsettledCount} orders keep changing`);
  const deadLetters = (await admin.endOffsets(deadLetterTopic)).reduce((sum, { offset }) => sum + Number(offset), 0);
  if (deadLetters > 0) broken.push(`${deadLetters} dead letters, although no event was faulty`);
  for (const service of serviceNames) {
    const charged = await countEvents(sources, service, "retry_count > 0");
    if (charged > 0) broken.push(`an outage was counted as a failed attempt of ${charged} events of ${service}`);
  }
  return broken;
}

async function countEvents(
  { databases }: ChaosStack["sources"],
  service: ServiceName,
  condition: string,
): Promise<number> {
  const [row] = await databases[service].query<{ n: number }>(
    `SELECT COUNT(*) AS n FROM ${service}_outbox_event WHERE ${condition}`,
  );
  return Number(row?.n ?? 0);
}
