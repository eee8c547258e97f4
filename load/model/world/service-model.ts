/** What the model needs to know of a service. For each service, one file in this folder implements it. */
import { fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { eventRegistry, type SagaEvent } from "../../../proto/event-table.ts";
import type { StockLevels } from "../../../services/inventory/domain.ts";
import type { OrderSnapshot } from "./promises.ts";
import { Violation } from "./violation.ts";

/** What a service commits in the transaction for one message. */
export interface Committed<Row> {
  /** The service's row for the order. */
  readonly after: Row;
  /** The events that it writes to its outbox. */
  readonly published: readonly SagaEvent[];
  /** The stock that all orders share. Only inventory changes it. */
  readonly stock: StockLevels;
}

/**
 * A service: its real domain code, and around it what its message handler does with a database. `Domain` is the module
 * of pure functions, `Row` the service's row for one order, `Incoming` everything that the service handles.
 */
export interface ServiceModel<Domain, Row, Incoming> {
  /** The code that runs in production. The functions below take a domain, so that they run mutants as well. */
  readonly domain: Domain;
  /** The row of an order that was just placed. */
  initialRow(domain: Domain, orderId: string): Row;
  /**
   * The service's transaction for one message.
   * @throws Violation if the row changes in a way that is never allowed.
   */
  commit(domain: Domain, before: Row, message: Incoming, stock: StockLevels): Committed<Row>;
  /**
   * Checks the promises that concern the service's row. They hold in every state.
   * @throws Violation
   */
  check(order: OrderSnapshot): void;
}

/** The events for the facts that `decide` returned, as consumers receive them: encoded to binary and decoded again. */
export function eventsFor<Fact>(
  orderId: string,
  facts: readonly Fact[],
  toEvent: (orderId: string, fact: Fact) => Message | undefined,
): readonly SagaEvent[] {
  return facts.flatMap((fact) => {
    const event = toEvent(orderId, fact);
    return event === undefined ? [] : [throughWireFormat(event)];
  });
}

function throughWireFormat(event: Message): SagaEvent {
  const schema = eventRegistry.getMessage(event.$typeName);
  if (schema === undefined) throw new Violation(`${event.$typeName} is not an event of the saga`);
  return fromBinary(schema, toBinary(schema, event)) as unknown as SagaEvent;
}
