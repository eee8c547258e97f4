/** The effect of a batch of events: what the service's handler decides, and what happens once that is committed. */
import type { Message } from "@bufbuild/protobuf";
import type { Transaction } from "../../services/kit/database.ts";
import type { Statement } from "../../services/kit/statements.ts";
import type { Outbox } from "../outbox/append.ts";
import type { HintSender } from "../outbox/hint.ts";
import { inboxTableName } from "../tables.ts";
import { runHandler } from "./faults.ts";
import type { BatchHandler, BatchResult, ReceivedEvent } from "./handler.ts";
import type { InboxMetrics } from "./metrics.ts";

/** What the handler has decided for a batch of events, not committed yet. */
export interface Effect<M extends Message> {
  readonly events: readonly ReceivedEvent<M>[];
  readonly result: BatchResult;
  /** The handler's writes, the outbox rows and the marks of ignored events, in this order. */
  readonly statements: readonly Statement[];
}

const nothing: BatchResult = { writes: [], publish: [], ignored: [] };

/** The effect of no events. */
export const noEffect: Effect<never> = { events: [], result: nothing, statements: [] };

export interface EffectOptions<M extends Message> {
  /** Names the inbox's tables. */
  readonly service: string;
  readonly handle: BatchHandler<M>;
  readonly outbox: Outbox;
  readonly hints: HintSender;
  /** Event types for which the relay gets its hint at once. For others it gets one a little later. Default: all types. */
  readonly urgentToPublish?: ReadonlySet<string>;
  /** Called after a commit with the events that it has handled. Must not throw. */
  readonly onCommitted?: (events: readonly ReceivedEvent<M>[]) => void;
}

export interface Effects<M extends Message> {
  /** Runs the handler on events that are new to the service. @throws HandlerError if its own code throws, or the error of a statement. */
  decide(transaction: Transaction, events: readonly ReceivedEvent<M>[]): Promise<Effect<M>>;
  /** Does what follows the effect's commit: counts the events, sends the hint and calls the callbacks. */
  afterCommit(effect: Effect<M>): void;
}

/** Runs the service's handler. @param onHandled called after each commit that has handled events. */
export function createEffects<M extends Message>(
  options: EffectOptions<M>,
  metrics: InboxMetrics,
  onHandled: () => void,
): Effects<M> {
  const { handle, outbox, hints } = options;
  const markIgnoredSql = `UPDATE ${inboxTableName(options.service)} SET outcome = 'IGNORED' WHERE event_id IN (?)`;
  const isUrgent = (type: string) => options.urgentToPublish?.has(type) ?? true;
  return {
    async decide(transaction, events) {
      if (events.length === 0) return noEffect;
      return await runHandler(transaction, async (watched) => {
        const result = await handle(watched, events);
        const { writes, publish, ignored } = result;
        const marks = ignored.length === 0 ? [] : [{ sql: markIgnoredSql, values: [ignored] }];
        return { events, result, statements: [...writes, ...outbox.statements(publish), ...marks] };
      });
    },
    afterCommit({ events, result }) {
      const { publish, ignored } = result;
      metrics.events.inc({ outcome: "handled" }, events.length - ignored.length);
      metrics.events.inc({ outcome: "ignored" }, ignored.length);
      if (events.length > 0) onHandled();
      if (publish.some(({ message }) => isUrgent(message.$typeName))) hints.send();
      else if (publish.length > 0) hints.sendLater();
      result.onCommitted?.();
      options.onCommitted?.(events);
    },
  };
}
