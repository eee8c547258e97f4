/**
 * What an order waits for, and who owes it: read off the event table, Order's own domain and the events that there are.
 * A pure function.
 */
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

/** What became of events at a service, by event id. */
export type Outcomes = ReadonlyMap<string, InboxOutcome>;

/** One thing that has to happen before the order goes on. */
export interface Owed {
  /** DELIVER: put the event on the topic. HANDLE: react to it. ANSWER: it was handled, and the answer is still to come. */
  readonly step: "DELIVER" | "HANDLE" | "ANSWER";
  readonly by: ServiceName | "relay";
  /** The types of which the order waits for any one. */
  readonly waitsFor: readonly string[];
  /** The event that is to be delivered, handled or answered. */
  readonly event: { readonly eventId: string; readonly type: string };
}

/** The events that would change an order in this state. */
function typesAwaited(state: OrderState): ReadonlySet<string> {
  const { orderId } = state;
  return new Set(
    eventTable.flatMap(({ schema, reactions }) => {
      if (!reactions.some(({ service }) => service === "order")) return [];
      // Order's reaction depends on the type alone.
      const message = create(schema, { orderId }) as HandledBy<"order">;
      return decide(state, message).length > 0 ? [schema.typeName] : [];
    }),
  );
}

/**
 * What is owed to an order that is not final; nothing for one that is. For an order that is not final an empty list means
 * that no event under way will ever move it: then something was lost.
 * @param events every event of the order, whoever published it.
 * @param inboxes Order's has every event of the topic.
 */
export function owedTo(
  state: OrderState,
  events: readonly KnownEvent[],
  inboxes: Readonly<Record<ServiceName, Outcomes>>,
): readonly Owed[] {
  const awaited = typesAwaited(state);
  const awaitedAmong = (reaction: Reaction) =>
    reaction.answers.map(({ typeName }) => typeName).filter((type) => awaited.has(type));
  // An answer that Order has let pass settles nothing: the one that counts is still to come.
  const answered = (types: readonly string[]) =>
    events.some(({ eventId, type }) => types.includes(type) && inboxes.order.get(eventId) !== "IGNORED");

  const owed: Owed[] = [];
  for (const event of events) {
    const reactions: readonly Reaction[] =
      eventTable.find(({ schema }) => schema.typeName === event.type)?.reactions ?? [];
    const { eventId, type, status } = event;
    const onTopic = status === "PUBLISHED" || inboxes.order.has(eventId);
    const asks = reactions.flatMap(
      (reaction): { readonly service: ServiceName; readonly waitsFor: readonly string[] }[] => {
        const { service } = reaction;
        const waitsFor = service === "order" ? [type].filter((it) => awaited.has(it)) : awaitedAmong(reaction);
        return waitsFor.length > 0 ? [{ service, waitsFor }] : [];
      },
    );
    if (asks.length === 0 || status === "DISCARDED") continue;
    if (!onTopic) {
      const waitsFor = [...new Set(asks.flatMap((ask) => ask.waitsFor))];
      owed.push({ step: "DELIVER", by: "relay", waitsFor, event: { eventId, type } });
      continue;
    }
    for (const { service, waitsFor } of asks) {
      const outcome = inboxes[service].get(eventId);
      const isOpen = outcome === undefined || outcome === "PARKED";
      if (!isOpen && (service === "order" || outcome === "IGNORED" || answered(waitsFor))) continue;
      owed.push({ step: isOpen ? "HANDLE" : "ANSWER", by: service, waitsFor, event: { eventId, type } });
    }
  }
  return owed;
}
