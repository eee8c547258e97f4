/** What an order waits for and who owes it, derived from the event table, Order's domain and the order's events. Pure. */
import { create } from "@bufbuild/protobuf";
import { eventTable, type HandledBy, type Reaction, type ServiceName } from "../../../proto/event-table.ts";
import type { InboxOutcome, OutboxStatus } from "../../../relay/tables.ts";
import { decide, type OrderState } from "../../order/domain.ts";

/** An event of the order, from its publisher's outbox or archive. */
export interface KnownEvent {
  readonly eventId: string;
  readonly type: string;
  readonly status: OutboxStatus;
}

/** A service's outcomes by event id; no entry for an event that it has not received. */
export type Outcomes = ReadonlyMap<string, InboxOutcome>;

/** A step that must happen before the order can go on. */
export interface Owed {
  /**
   * DELIVER: publish the event to the topic. HANDLE: handle the event. ANSWER: publish the answer to an event that was
   * handled already.
   */
  readonly step: "DELIVER" | "HANDLE" | "ANSWER";
  readonly by: ServiceName | "relay";
  /** The order goes on with any one of these event types. */
  readonly waitsFor: readonly string[];
  /** The event to deliver, handle or answer. */
  readonly event: { readonly eventId: string; readonly type: string };
}

/** The events that would change an order in this state. */
function typesAwaited(state: OrderState): ReadonlySet<string> {
  const { orderId } = state;
  return new Set(
    eventTable.flatMap(({ schema, reactions }) => {
      if (!reactions.some(({ service }) => service === "order")) return [];
      // Order reacts to the type alone, so an empty message will do.
      const message = create(schema, { orderId }) as HandledBy<"order">;
      return decide(state, message).length > 0 ? [schema.typeName] : [];
    }),
  );
}

/**
 * Lists what is owed to an order. A final order is owed nothing. If the list is empty for any other order, no event on its
 * way can move it: something was lost.
 * @param events every event of the order, from all publishers.
 * @param inboxes Order's has every event on the topic.
 */
export function owedTo(
  state: OrderState,
  events: readonly KnownEvent[],
  inboxes: Readonly<Record<ServiceName, Outcomes>>,
): readonly Owed[] {
  const awaited = typesAwaited(state);
  const awaitedAmong = (reaction: Reaction) =>
    reaction.answers.map(({ typeName }) => typeName).filter((type) => awaited.has(type));
  // An answer that Order ignored does not count: the order still waits for another one.
  const answered = (types: readonly string[]) =>
    events.some(({ eventId, type }) => types.includes(type) && inboxes.order.get(eventId) !== "IGNORED");

  const owed: Owed[] = [];
  for (const { eventId, type, status } of events) {
    if (status === "DISCARDED") continue;
    const event = { eventId, type };
    const reactions: readonly Reaction[] = eventTable.find(({ schema }) => schema.typeName === type)?.reactions ?? [];
    const debts = reactions
      .map((reaction) => ({
        service: reaction.service,
        waitsFor: reaction.service === "order" ? [type].filter((it) => awaited.has(it)) : awaitedAmong(reaction),
      }))
      .filter(({ waitsFor }) => waitsFor.length > 0);
    if (debts.length === 0) continue;
    const isOnTopic = status === "PUBLISHED" || inboxes.order.has(eventId);
    if (!isOnTopic) {
      const waitsFor = [...new Set(debts.flatMap((debt) => debt.waitsFor))];
      owed.push({ step: "DELIVER", by: "relay", waitsFor, event });
      continue;
    }
    for (const { service, waitsFor } of debts) {
      const outcome = inboxes[service].get(eventId);
      const isUnhandled = outcome === undefined || outcome === "PARKED";
      if (!isUnhandled && (service === "order" || outcome === "IGNORED" || answered(waitsFor))) continue;
      owed.push({ step: isUnhandled ? "HANDLE" : "ANSWER", by: service, waitsFor, event });
    }
  }
  return owed;
}
