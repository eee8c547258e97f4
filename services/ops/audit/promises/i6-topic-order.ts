/**
 * I6: on the topic, the first occurrences of an order's events from one publisher are in `ce_sequence` order, with no gap
 * but discarded events.
 */
import type { ServiceName } from "../../../../proto/event-table.ts";
import { serviceNames } from "../../../stack/services.ts";
import { shortNameOf } from "../books.ts";
import { type OrderCheck, sourceOf, withoutPayload } from "./order-check.ts";

export function checkTopicOrder(check: OrderCheck): void {
  for (const service of serviceNames) checkEventsOf(check, service);
}

function checkEventsOf(check: OrderCheck, service: ServiceName): void {
  const { books, context } = check;
  const { events } = books[service];
  const occurrences = books.topic.filter(({ source }) => source === sourceOf(service));
  const rowById = new Map(events.map((row) => [row.eventId, row]));
  const evidence = { topic: occurrences, [`${service} outbox`]: events.map(withoutPayload) };
  const report = (what: string) => check.report("I6", what, evidence);
  const nameOf = ({ type, eventId }: { readonly type: string; readonly eventId: string }) =>
    `${service}'s ${shortNameOf(type)} ${eventId}`;
  if (rowById.size < events.length) report(`an event is both in ${service}'s outbox and in its archive`);
  let lastSequence = -1;
  for (const occurrence of occurrences) {
    const { eventId, sequence } = occurrence;
    if (sequence <= lastSequence) report(`${nameOf(occurrence)} is on the topic after a later event`);
    lastSequence = Math.max(lastSequence, sequence);
    const row = rowById.get(eventId);
    if (row === undefined ? sequence >= context.oldest[service].sequence : row.sequence !== sequence) {
      report(`${nameOf(occurrence)} is on the topic, but ${service} has no such row`);
    }
  }
  const onTopic = new Set(occurrences.map(({ eventId }) => eventId));
  for (const row of events) {
    if (onTopic.has(row.eventId) || row.status === "DISCARDED") continue;
    if (row.status !== "PUBLISHED") {
      if (row.sequence < lastSequence) report(`${nameOf(row)} is not on the topic, but a later event is`);
    } else if (row.publishedAt !== null && row.publishedAt > context.retainedSince) {
      report(`${nameOf(row)} is PUBLISHED, but not on the topic`);
    }
  }
}
